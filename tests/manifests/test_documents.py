"""The documents: their links lead somewhere, their index is whole, their figures are measured."""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MEASURED = (DOCS / "benchmarks.md").read_text("utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
#: What may name a document by its path.
SOURCES = sorted(
    path
    for name in ("hello", "tests", "scripts", "manifests", "compose", ".ci", ".github")
    for path in (ROOT / name).rglob("*")
    if path.suffix in ("", ".py", ".sh", ".tf", ".yaml", ".yml", ".json", ".conf")
    and path.is_file()
    and not {"__pycache__", "node_modules", ".terraform"} & set(path.parts)
)


def without_code(document: str) -> str:
    return re.sub(r"^```.*?^```$", "", document, flags=re.M | re.S)


def anchor(title: str) -> str:
    """As GitHub and GitLab make it of a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


@cache
def anchors(path: Path) -> set[str]:
    found: set[str] = set()
    seen: Counter[str] = Counter()
    text = without_code(path.read_text("utf-8"))
    for title in re.findall(r"^#+ +(.*?) *$", text, re.M):
        name = anchor(title)
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


def dead_links(path: Path) -> list[str]:
    dead = []
    text = without_code(path.read_text("utf-8"))
    for link in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", text):
        name, _, part = unquote(link).partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (part and part not in anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    assert dead_links(path) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# It's `here`: 2 of it\n\n# Twice\n\n# Twice\n")
    page = tmp_path / "page.md"
    good = ["other.md", "other.md#its-here-2-of-it", "other.md#twice-1", "#one", "https://a.b/c"]
    dead = ["missing.md", "other.md#twice-2", "#two"]
    page.write_text("# One\n\n" + "".join(f"[text]({link})\n" for link in good + dead))
    assert dead_links(page) == dead


def test_a_document_that_is_named_is_there() -> None:
    for path in SOURCES:
        text = path.read_text("utf-8")
        for name, part in re.findall(r"(?<![\w/])docs/([\w/-]+\.md)(?:#([\w-]+))?", text):
            assert (DOCS / name).is_file(), f"{path}: {name}"
            assert not part or part in anchors(DOCS / name), f"{path}: {name}#{part}"


def test_the_index_has_each_page_once() -> None:
    index = (DOCS / "README.md").read_text("utf-8")
    listed = re.findall(r"^\| \[([^]]+)\]\(([^)]+)\) \|", index, re.M)
    assert all(text == link for text, link in listed)
    pages = {path.name for path in DOCS.glob("*.md")} - {"README.md"} | {"decisions/README.md"}
    assert sorted(link for _, link in listed) == sorted(pages)


def test_the_figures_in_the_readme_are_measured() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    [figures] = re.findall("<!-- figures -->\n(.*?)<!-- end -->", readme, re.S)
    # Thousands are told apart by a space that does not break.
    measured = re.sub("[\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}]", " ", MEASURED)
    numbers = re.findall(r"\d{4}-\d\d-\d\d|\d+(?: \d{3})+|\d+(?:\.\d+)*", figures)
    assert len(numbers) > 10
    for number in numbers:
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", measured), number


def imported(path: Path) -> set[str]:
    """The modules of the service that a module imports itself."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "hello":
            assert node.module
            names |= {f"{node.module}.{each.name}" for each in node.names} | {node.module}
    paths = {name.replace(".", "/").partition("/")[2] for name in names}
    return {name for name in paths if (ROOT / "hello" / f"{name}.py").is_file()}


def with_all_below(modules: set[str]) -> set[str]:
    """Modules, what they import, what that imports, and so on."""
    found: set[str] = set()
    while new := modules - found:
        found |= new
        modules = {name for each in new for name in imported(ROOT / "hello" / f"{each}.py")}
    return found


def test_the_readme_says_what_a_part_imports() -> None:
    rows = re.findall(
        r"^\|[^|]+\| (`hello/[^|]+\.py`) \| ([^|]+) \|$",
        (ROOT / "README.md").read_text("utf-8").partition("\nIf you need it:\n")[0],
        re.M,
    )
    rows = [(where, what) for where, what in rows if what != "all that it checks: take its form"]
    assert len(rows) == 3
    for where, what in rows:
        files = [ROOT / name for name in re.findall("`([^`]+)`", where)]
        own = {path.relative_to(ROOT / "hello").with_suffix("").as_posix() for path in files}
        found = with_all_below(own) - own
        said = re.split("[:;]", what)[0]
        assert said == (", ".join(f"`{name}`" for name in sorted(found)) or "nothing"), where
