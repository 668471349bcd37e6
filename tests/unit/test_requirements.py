"""The locks in requirements/ hold what setup.cfg asks for, and nothing of who made them."""

import configparser
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = {path.stem: path.read_text() for path in (ROOT / "requirements").glob("*.txt")}

#: Every requirement of a lock with its markers, and what follows: the hashes.
LOCKED = re.compile(
    r"^(\w[^#\\\n]*==[^\\\n]*?) \\\n((?: {4}--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M
)


def locked(name: str) -> dict[str, Requirement]:
    found = [Requirement(match[1]) for match in LOCKED.finditer(LOCKS[name])]
    return {canonicalize_name(each.name): each for each in found}


def asked(extra: str | None = None) -> list[Requirement]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    lines = setup["options"]["install_requires"] if extra is None else extras[extra]
    return [
        Requirement(line) for line in lines.split("\n") if line and not line.startswith("hello")
    ]


def test_there_are_the_locks_that_are_installed() -> None:
    assert LOCKS.keys() == {"build", "runtime", "traces", "test", "checkov"}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_exact_requirements_with_hashes_and_nothing_else(name: str) -> None:
    comments = re.compile(r"^#.*\n", re.M)
    assert LOCKED.sub("", comments.sub("", LOCKS[name])) == ""
    for requirement in locked(name).values():
        assert [each.operator for each in requirement.specifier] == ["=="]
    # Neither the host of an index nor a path of the machine on which it was made.
    assert not re.search(r"https?:|file:|index-url|find-links|/(home|root|tmp)/", LOCKS[name])


@pytest.mark.parametrize(
    ("name", "extras"),
    [("runtime", [None]), ("traces", [None, "otel"]), ("test", [None, "otel", "dev"])],
)
def test_a_lock_has_what_setup_cfg_asks_for(name: str, extras: list[str | None]) -> None:
    lock = locked(name)
    for requirement in [each for extra in extras for each in asked(extra)]:
        [pin] = lock[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(pin.version, prereleases=True), requirement


def test_what_is_tested_is_what_runs() -> None:
    runtime, traces, test = map(locked, ("runtime", "traces", "test"))
    assert runtime.keys() < traces.keys() < test.keys()
    for larger in (traces, test):
        for name, requirement in runtime.items():
            assert larger[name].specifier == requirement.specifier
    assert {name: str(test[name].specifier) for name in traces} == {
        name: str(each.specifier) for name, each in traces.items()
    }


def test_what_builds_the_package_is_locked_too() -> None:
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert requires == [f"{each.name}{each.specifier}" for each in locked("build").values()]
