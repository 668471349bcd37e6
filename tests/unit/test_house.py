"""Which part of the house imports which."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

#: What a package never imports, its subpackages included.
NEVER = {
    "server": {"app", "backends", "batching", "cache", "database", "resources", "users"},
    "database": {"app", "cache", "resources", "server"},
    "cache": {"app", "backends", "resources", "server", "users"},
    "telemetry": {
        "app",
        "backends",
        "batching",
        "cache",
        "database",
        "resources",
        "server",
        "users",
    },
    "resources": {"app", "backends", "cache", "database", "server"},
}


class Import(NamedTuple):
    file: Path
    line: int
    #: A module, or something in it.
    name: str

    @property
    def part(self) -> str:
        """What is imported: of `hello` the package or the module, else what comes first."""
        return self.name.partition(".")[2].partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: {self.name}"


def imports(folder: str, of: str) -> Iterator[Import]:
    """Every import of `of` in a folder, wherever it stands: in a function, for types alone."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}:{node.lineno}: name the module in full"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                if name.split(".")[0] == of:
                    yield Import(file, node.lineno, name)


def module(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package(name: str) -> str:
    """The package below `hello` that a module is in, or the module if it is in none."""
    return ".".join(name.split(".")[:2])


def order(edges: list[tuple[str, str]]) -> list[str]:
    """What is imported before what imports it; raises CycleError where there is no such order."""
    graph: dict[str, set[str]] = {}
    for importing, imported in edges:
        if importing != imported:
            graph.setdefault(importing, set()).add(imported)
    return list(TopologicalSorter(graph).static_order())


@pytest.fixture(scope="module")
def edges() -> list[tuple[str, str]]:
    """Which module of the service imports which."""
    modules = {module(file) for file in (ROOT / "hello").rglob("*.py")}
    return [
        (module(each.file), each.name if each.name in modules else each.name.rpartition(".")[0])
        for each in imports("hello", of="hello")
    ]


def test_no_modules_import_each_other(edges: list[tuple[str, str]]) -> None:
    # Neither does one of them in a function: that would hide the circle, and keep it.
    assert len(order(edges)) > 30


def test_no_packages_import_each_other(edges: list[tuple[str, str]]) -> None:
    # A package counts as one: what imports a part of it is above all of it.
    assert len(order([(package(a), package(b)) for a, b in edges])) > 10


@pytest.mark.parametrize("name", NEVER)
def test_a_package_leaves_alone_what_is_above_it(name: str) -> None:
    found = [str(each) for each in imports(f"hello/{name}", of="hello") if each.part in NEVER[name]]
    assert found == []


def test_the_service_imports_no_tests() -> None:
    assert list(map(str, imports("hello", of="tests"))) == []


@pytest.mark.parametrize("kind", ["unit", "functional", "system", "manifests", "support"])
def test_tests_share_what_is_in_support_alone(kind: str) -> None:
    found = list(imports(f"tests/{kind}", of="tests"))
    assert [str(each) for each in found if each.part not in (kind, "support")] == []


def test_scripts_use_what_is_in_support_alone() -> None:
    found = list(imports("scripts", of="tests"))
    assert [str(each) for each in found if each.part != "support"] == []
