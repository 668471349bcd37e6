#!/usr/bin/env python3
"""cells.py: in which cell a user is, where users are spread over several services.

    cells.py lua                     what HAProxy loads, to know it
    cells.py map CELLS               a map of all slots to so many cells
    cells.py others MAP CELL         of the usernames on standard input, those of other cells

A user's slot, of which there are SLOTS, is a hash of the name; a map, which HAProxy reads too, says
which cell has a slot. See docs/scaling.md.

All spellings of one username must have one slot. The service stores a name in Unicode's normal form
C, so the hash is of what all of a name's forms have in common: its characters, decomposed, without
the marks that combine with them. Run `lua` with the Python of the service: each has its Unicode.
"""

import argparse
import sys
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

#: So many cells there can be.
SLOTS = 64

#: Syllables of Hangul, which are decomposed by arithmetic.
HANGUL = range(0xAC00, 0xD7A4)

LUA = """\
-- Made by scripts/cells.py for Unicode {version}.
local keys = {{
{keys}
}}

local function key(character)
  local syllable = utf8.codepoint(character) - 0xAC00
  if syllable < 0 or syllable >= 11172 then
    return keys[character]
  end
  local last = syllable % 28
  return utf8.char(0x1100 + syllable // 588, 0x1161 + syllable % 588 // 28)
    .. (last > 0 and utf8.char(0x11A7 + last) or "")
end

-- What all spellings of a username have in common; of what is not UTF-8, nothing.
core.register_converters("username", function(name)
  if not utf8.len(name) then
    return ""
  end
  return (name:gsub("[\\xC2-\\xF4][\\x80-\\xBF]+", key))
end)
"""


def key(name: str) -> str:
    """What all forms of a username have in common."""
    return "".join(c for c in unicodedata.normalize("NFD", name) if not unicodedata.combining(c))


def slot(name: str) -> int:
    return zlib.crc32(key(name).encode()) % SLOTS


def spread(cells: int) -> dict[int, str]:
    """Which cell has each slot, if there are so many."""
    return {number: f"cell-{number % cells}" for number in range(SLOTS)}


def others(slots: Mapping[int, str], cell: str, names: Iterable[str]) -> list[str]:
    """Those of `names` that are not of `cell`."""
    return [name for name in names if slots[slot(name)] != cell]


def lua() -> str:
    keys = "\n".join(f'["{c}"]="{key(c)}",' for c in _characters() if key(c) != c)
    return LUA.format(version=unicodedata.unidata_version, keys=keys)


def _characters() -> Iterator[str]:
    for number in range(0x80, sys.maxunicode + 1):
        if number not in HANGUL and not 0xD800 <= number < 0xE000:
            yield chr(number)


def read(path: Path) -> dict[int, str]:
    lines = (line.split() for line in path.read_text().splitlines())
    # A slot that moves is still its old cell's.
    return {int(number): cell.partition(":")[0] for number, cell in lines}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lua")
    commands.add_parser("map").add_argument("cells", type=int)
    filter_ = commands.add_parser("others")
    filter_.add_argument("map", type=Path)
    filter_.add_argument("cell")
    chosen = parser.parse_args(arguments)
    if chosen.command == "lua":
        print(lua(), end="")
    elif chosen.command == "map":
        print(*(f"{number} {cell}" for number, cell in spread(chosen.cells).items()), sep="\n")
    else:
        names = sys.stdin.read().splitlines()
        print(*others(read(chosen.map), chosen.cell, names), sep="\n")


if __name__ == "__main__":
    main()
