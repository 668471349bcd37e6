#!/usr/bin/env python3
"""draw.py: make docs/*.svg and docs/*.png from their descriptions, docs/*.toml.

A description has places in units of which the picture is `width` wide, and a README shows
some 900 pixels:

    [[frame]]   a region with a title, in the top left corner
    [[box]]     a thing: an id, a title, lines of text
    [[arrow]]   a line through points; a point is [x, y] or "id.side", or "id.side+20"
                which is 20 units further along that side; the last has the head.
                `step` is a number in a circle `at` a point, `label` a text at `label_at`
    [[note]]    lines of text; `numbered` ones begin with `first`, or 1

Anything may say what it is elsewhere, which is not drawn: see docs/systems-diagram.toml.

Colours come from `style`, in STYLES. With --check nothing is written, and the exit status is
1 if a picture is not what its description says. PNGs need rsvg-convert (Debian: librsvg2-bin).
"""

import argparse
import hashlib
import re
import shutil
import struct
import subprocess
import sys
import tomllib
import zlib
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

DOCS = Path(__file__).resolve().parents[1] / "docs"
MONO = "'DejaVu Sans Mono', Menlo, Consolas, monospace"
FONT = "Inter, 'DejaVu Sans', Verdana, Helvetica, Arial, sans-serif"

#: fill, stroke, text; a dashed stroke if the last is true.
STYLES = {
    "region": ("#ffffff", "#adb5bd", "#495057", False),
    "vpc": ("#f8f9fa", "#868e96", "#343a40", False),
    "zone": ("none", "#adb5bd", "#868e96", True),
    "public": ("#ebfbee", "none", "#2b8a3e", False),
    "private": ("#e7f5ff", "none", "#1864ab", False),
    "data": ("#f3f0ff", "none", "#5f3dc4", False),
    "plain": ("#ffffff", "#868e96", "#212529", False),
    "balancer": ("#d3f9d8", "#2f9e44", "#1b4d26", False),
    "node": ("#d0ebff", "#74c0fc", "#1864ab", False),
    "pod": ("#ffffff", "#1971c2", "#0b3d66", False),
    "database": ("#e5dbff", "#7048e8", "#3b2a87", False),
    "standby": ("#f8f6ff", "#9775fa", "#3b2a87", True),
    "cache": ("#ffe3e3", "#e03131", "#7d1f1f", False),
    "copy": ("#fff5f5", "#fa5252", "#7d1f1f", True),
    "secret": ("#fff9db", "#f08c00", "#664d03", False),
    "put": ("none", "#e8590c", "#c2410c", False),
    "get": ("none", "#1971c2", "#1864ab", False),
    "both": ("none", "#495057", "#343a40", False),
    "quiet": ("none", "#868e96", "#5c636a", True),
}

Point = tuple[float, float]


class Picture:
    """A description, drawn."""

    def __init__(self, text: str) -> None:
        self._description: dict[str, Any] = tomllib.loads(text)
        self._digest = hashlib.sha256(text.encode()).hexdigest()
        self._boxes = {box["id"]: box for box in self._description.get("box", []) if "id" in box}

    def svg(self) -> str:
        width, height = self._description["width"], self._description["height"]
        used = {arrow["style"] for arrow in self._description.get("arrow", [])}
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
            f' width="{width}" height="{height}" role="img" font-family="{FONT}">',
            f"<!-- by scripts/draw.py from a description with the SHA-256 {self._digest} -->",
            f"<title>{escape(self._description['title'])}</title>",
            "<defs>",
            *(self._head(style) for style in sorted(used)),
            "</defs>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        ]
        draw = {"frame": self._frame, "box": self._box, "arrow": self._arrow, "note": self._note}
        for kind, function in draw.items():
            for item in self._description.get(kind, []):
                parts += function(item)
        return "\n".join([*parts, "</svg>", ""])

    @staticmethod
    def _head(style: str) -> str:
        return (
            f'<marker id="head-{style}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="11"'
            f' markerHeight="11" markerUnits="userSpaceOnUse" orient="auto">'
            f'<path d="M0,0 L10,5 L0,10 z" fill="{STYLES[style][1]}"/></marker>'
        )

    @staticmethod
    def _rectangle(item: dict[str, Any], radius: int) -> str:
        fill, stroke, _, dashed = STYLES[item["style"]]
        dash = ' stroke-dasharray="7 5"' if dashed else ""
        return (
            f'<rect x="{item["x"]}" y="{item["y"]}" width="{item["w"]}" height="{item["h"]}"'
            f' rx="{radius}" fill="{fill}" stroke="{stroke}" stroke-width="1.6"{dash}/>'
        )

    @staticmethod
    def _text(
        text: str, at: Point, size: float, color: str, anchor: str = "start", weight: int = 400
    ) -> str:
        # `code` is set in another font.
        code = f'<tspan font-family="{MONO}" font-size="{size * 0.93:g}">'
        spans = re.sub("`([^`]+)`", rf"{code}\1</tspan>", escape(text))
        return (
            f'<text x="{at[0]:g}" y="{at[1]:g}" font-size="{size:g}" fill="{color}"'
            f' text-anchor="{anchor}" font-weight="{weight}">{spans}</text>'
        )

    def _frame(self, frame: dict[str, Any]) -> list[str]:
        color = STYLES[frame["style"]][2]
        size = frame.get("size", 16)
        title = self._text(
            frame["title"], (frame["x"] + 12, frame["y"] + size + 5), size, color, weight=600
        )
        return [self._rectangle(frame, 10), title]

    def _box(self, box: dict[str, Any]) -> list[str]:
        color = STYLES[box["style"]][2]
        lines = box.get("text", [])
        size, small = box.get("size", 17), box.get("size", 17) - 2
        height = size * 1.2 + len(lines) * small * 1.3
        x, y = box["x"] + box["w"] / 2, box["y"] + (box["h"] - height) / 2 + size * 0.97
        if box.get("top"):
            y = box["y"] + size + 6
        parts = [
            self._rectangle(box, 7),
            self._text(box["title"], (x, y), size, color, "middle", 600),
        ]
        for line in lines:
            y += small * 1.3
            parts.append(self._text(line, (x, y), small, color, "middle"))
        return parts

    def _point(self, point: list[float] | str) -> Point:
        if not isinstance(point, str):
            return point[0], point[1]
        match = re.fullmatch(r"(\w+)\.(\w+)([+-]\d+)?", point)
        if match is None:
            raise ValueError(f"{point!r} is no point: id.side, or id.side+20")
        name, side, offset = match.groups()
        box, along = self._boxes[name], int(offset or 0)
        middle = box["x"] + box["w"] / 2 + along, box["y"] + box["h"] / 2 + along
        return {
            "top": (middle[0], box["y"]),
            "bottom": (middle[0], box["y"] + box["h"]),
            "left": (box["x"], middle[1]),
            "right": (box["x"] + box["w"], middle[1]),
        }[side]

    def _arrow(self, arrow: dict[str, Any]) -> list[str]:
        _, stroke, color, dashed = STYLES[arrow["style"]]
        points = [self._point(point) for point in arrow["points"]]
        dash = ' stroke-dasharray="6 4"' if dashed else ""
        width = arrow.get("width", 1.6 if dashed else 2.6)
        parts = [
            f'<path d="{_rounded(points)}" fill="none" stroke="{stroke}" stroke-width="{width}"'
            f' marker-end="url(#head-{arrow["style"]})"{dash}/>'
        ]
        if "step" in arrow:
            x, y = arrow["at"]
            parts += [
                f'<circle cx="{x}" cy="{y}" r="12" fill="{stroke}" stroke="#ffffff"'
                ' stroke-width="2"/>',
                self._text(str(arrow["step"]), (x, y + 5.4), 15, "#ffffff", "middle", 700),
            ]
        if "label" in arrow:
            anchor = arrow.get("anchor", "middle")
            parts.append(self._text(arrow["label"], arrow["label_at"], 14, color, anchor))
        return parts

    def _note(self, note: dict[str, Any]) -> list[str]:
        _, stroke, color, _ = STYLES[note["style"]]
        size = note.get("size", 16)
        x, y = note["x"], note["y"]
        parts = [self._text(note["title"], (x, y), size + 1, color, weight=note.get("weight", 700))]
        for number, line in enumerate(note["text"], note.get("first", 1)):
            y += size * 1.55
            if note.get("numbered"):
                parts += [
                    f'<circle cx="{x + 11}" cy="{y - 5.5:g}" r="11" fill="{stroke}"/>',
                    self._text(str(number), (x + 11, y - 0.5), 14, "#ffffff", "middle", 700),
                ]
            indent = 32 if note.get("numbered") else 0
            parts.append(self._text(line, (x + indent, y), size, "#212529"))
        return parts


def _rounded(points: list[Point], radius: float = 9) -> str:
    """An SVG path with round corners."""
    path = f"M{points[0][0]:g},{points[0][1]:g}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        start, end = _towards(corner, before, radius), _towards(corner, after, radius)
        path += f" L{start[0]:g},{start[1]:g} Q{corner[0]:g},{corner[1]:g} {end[0]:g},{end[1]:g}"
    return path + f" L{points[-1][0]:g},{points[-1][1]:g}"


def _towards(start: Point, end: Point, distance: float) -> Point:
    length = ((end[0] - start[0]) ** 2 + (end[1] - start[1]) ** 2) ** 0.5
    part = min(distance, length / 2) / length if length else 0
    return (
        round(start[0] + (end[0] - start[0]) * part, 2),
        round(start[1] + (end[1] - start[1]) * part, 2),
    )


def _png(svg: str) -> bytes:
    """The picture at one and a half times its size, with the digest of the SVG in it."""
    command = ["rsvg-convert", "--zoom", "1.5", "--format", "png"]
    png = subprocess.run(command, input=svg.encode(), check=True, capture_output=True).stdout
    chunk = b"tEXtSource\0" + _digest(svg)
    header = 8 + 25  # the signature and IHDR, after which a chunk may come
    return (
        png[:header]
        + struct.pack(">I", len(chunk) - 4)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + png[header:]
    )


def _digest(svg: str) -> bytes:
    return hashlib.sha256(svg.encode()).hexdigest().encode()


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw docs/*.toml.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    check = parser.parse_args().check
    stale = []
    for source in sorted(DOCS.glob("*.toml")):
        svg, png = source.with_suffix(".svg"), source.with_suffix(".png")
        drawn = Picture(source.read_text()).svg()
        if not svg.exists() or svg.read_text() != drawn:
            stale.append(svg.name)
        outdated = not png.exists() or b"tEXtSource\0" + _digest(drawn) not in png.read_bytes()
        if outdated:
            stale.append(png.name)
        if not check:
            svg.write_text(drawn)
            # Another version of the program would draw other bytes of the same picture.
            if not outdated:
                continue
            if shutil.which("rsvg-convert") is None:
                sys.exit("draw: no rsvg-convert: the PNGs are as they were (librsvg2-bin)")
            png.write_bytes(_png(drawn))
    if check and stale:
        print(f"not what the description says: {', '.join(stale)}; run scripts/draw.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
