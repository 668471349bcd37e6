"""A skip that nobody has thought of is a failure where all programs are installed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import skips

ROOT = Path(__file__).parents[3]

TESTS = f"""
import pytest

@pytest.mark.skipif(True, reason="needs something")
def test_marked():
    pass

@pytest.fixture
def thing():
    pytest.skip("needs a thing")

def test_fixture(thing):
    pass

def test_inside():
    pytest.skip({next(iter(skips.LISTED))!r})

@pytest.mark.xfail
def test_expected():
    assert False
"""


@pytest.mark.parametrize(
    ("options", "outcome", "status"),
    [
        ([], "3 skipped, 1 xfailed", 0),
        (["--no-unlisted-skips"], "1 skipped, 1 xfailed, 2 errors", 1),
    ],
)
def test_a_skip_is_listed_or_a_failure(
    tmp_path: Path, options: list[str], outcome: str, status: int
) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.skips", *options, "."]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome in done.stdout
    assert done.returncode == status
    assert ("does not list why: needs a thing" in done.stdout) == bool(status)


def test_each_reason_on_the_list_is_one_that_a_test_gives() -> None:
    sources = "".join(
        path.read_text() for path in (ROOT / "tests").rglob("*.py") if path.name != "skips.py"
    )
    assert [reason for reason in skips.LISTED if f'"{reason}"' not in sources] == []


def test_ci_runs_with_the_list() -> None:
    runs = re.findall(r"TESTS=(.*?)(?: test)?$", (ROOT / ".ci" / "run").read_text(), re.M)
    assert len(runs) == 2
    assert all("--no-unlisted-skips" in run for run in runs)
