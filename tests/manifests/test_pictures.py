"""The pictures in docs/ are what their descriptions say."""

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
DRAW = ROOT / "scripts" / "draw.py"
PICTURES = sorted((ROOT / "docs").glob("*.toml"))


def test_the_pictures_are_up_to_date() -> None:
    # Drawing an SVG needs nothing; each PNG says of which SVG it was made.
    command = [sys.executable, str(DRAW), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_picture_that_is_up_to_date_is_not_drawn_again(tmp_path: Path) -> None:
    # Another version of rsvg-convert would draw other bytes; there is none on this PATH.
    (tmp_path / "scripts").mkdir()
    (tmp_path / "docs").mkdir()
    shutil.copy(DRAW, tmp_path / "scripts")
    files = [path for each in PICTURES for path in DRAW.parents[1].glob(f"docs/{each.stem}.*")]
    for path in files:
        shutil.copy(path, tmp_path / "docs")
    command = [sys.executable, str(tmp_path / "scripts" / DRAW.name)]
    done = subprocess.run(command, env={"PATH": ""}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(files) == 3 * len(PICTURES)
    for path in files:
        assert (tmp_path / "docs" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("description", PICTURES, ids=lambda path: path.stem)
def test_nothing_is_outside_the_picture(description: Path) -> None:
    svg = ElementTree.parse(description.with_suffix(".svg")).getroot()
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    for rect in svg.iter("{http://www.w3.org/2000/svg}rect"):
        x, y = float(rect.attrib.get("x", 0)), float(rect.attrib.get("y", 0))
        assert x + float(rect.attrib["width"]) <= width
        assert y + float(rect.attrib["height"]) <= height
    for text in svg.iter("{http://www.w3.org/2000/svg}text"):
        assert float(text.attrib["y"]) < height


def test_the_picture_shows_what_terraform_makes() -> None:
    picture = (ROOT / "docs" / "systems-diagram.svg").read_text()
    for thing in ("NAT", "ECR", "RDS", "ElastiCache", "EKS", "KMS", "Secrets Manager", "standby"):
        assert thing in picture
    assert picture.count(">zone ") == 3
