"""docs/code.md names the modules that there are."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
HELLO = ROOT / "hello"
PAGE = (ROOT / "docs" / "code.md").read_text("utf-8")
MODULES = {
    path.relative_to(HELLO).with_suffix("").as_posix()
    for path in HELLO.rglob("*.py")
    if path.name != "__init__.py" and path.parent.name != "migrations"
}
#: Who takes part in a journey, and is no module.
OUTSIDE = {"client", "Valkey", "PostgreSQL"}


def test_each_module_has_one_line() -> None:
    lines = re.findall(r"^\| `([\w/]+)` \|", PAGE, re.MULTILINE)
    assert sorted(lines) == sorted(MODULES)


def test_a_journey_goes_through_modules() -> None:
    journeys = re.findall("```mermaid\n(.*?)```", PAGE, re.DOTALL)
    assert len(journeys) == 2
    for journey in journeys:
        named = re.findall(r"^ +(?:participant|actor) (?:\w+ as )?(\S+)$", journey, re.MULTILINE)
        assert set(named) - OUTSIDE <= MODULES
        assert set(re.findall(r"\((\w+(?:/\w+)?)\)", journey)) <= MODULES
