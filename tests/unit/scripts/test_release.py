"""`make release`: one version everywhere, a commit and a tag, and nothing half done."""

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import hello

ROOT = Path(__file__).parents[3]
NAMES = [
    "CHANGELOG.md",
    "hello/__init__.py",
    "hello/openapi.yaml",
    "hello/openapi.json",
    "manifests/base/kustomization.yaml",
]

CHANGELOG = """# Changelog

## [Unreleased]

### Added

- Something.

## [0.9.0] - 2020-01-01

- Old.
"""


class Repository:
    def __init__(self, path: Path) -> None:
        self.path = path
        for name in [*NAMES, "scripts/release"]:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, path / name)
        self.write("CHANGELOG.md", CHANGELOG)
        self.git("init", "--quiet")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "Begin")

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text, "utf-8")

    def read(self, name: str) -> str:
        return (self.path / name).read_text("utf-8")

    def git(self, *arguments: str) -> str:
        return self._run("git", *arguments, check=True).stdout.strip()

    def release(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run(sys.executable, str(self.path / "scripts" / "release"), *arguments)

    def _run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        names = ("AUTHOR", "COMMITTER")
        who = {f"GIT_{name}_{what}": "test@test" for name in names for what in ("NAME", "EMAIL")}
        nothing = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        return subprocess.run(
            command,
            cwd=self.path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.path)} | who | nothing,
            capture_output=True,
            text=True,
            check=check,
        )


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_a_release_is_one_version_everywhere(repository: Repository) -> None:
    done = repository.release("98.7.6")
    assert (done.returncode, done.stderr) == (0, "")
    assert repository.git("status", "--porcelain") == ""
    assert repository.git("log", "-1", "--format=%s") == "Release 98.7.6"
    assert '__version__ = "98.7.6"\n' in repository.read("hello/__init__.py")
    assert json.loads(repository.read("hello/openapi.json"))["info"]["version"] == "98.7.6"
    assert "\n  version: 98.7.6\n" in repository.read("hello/openapi.yaml")
    labels = repository.read("manifests/base/kustomization.yaml")
    assert " app.kubernetes.io/version: 98.7.6\n" in labels
    today = datetime.now(UTC).date()
    assert repository.read("CHANGELOG.md") == CHANGELOG.replace(
        "## [Unreleased]\n", f"## [Unreleased]\n\n## [98.7.6] - {today}\n"
    )
    assert repository.git("describe") == "v98.7.6"
    said = repository.git("tag", "--list", "--format=%(contents)", "v98.7.6")
    assert said == "hello 98.7.6\n\n### Added\n\n- Something."


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "say which version"),
        (["1.2"], "say which version"),
        (["v98.7.6"], "say which version"),
        (["0.0.1"], "0.0.1 does not come after"),
        ([hello.__version__], f"{hello.__version__} does not come after"),
    ],
)
def test_a_version_comes_after_the_last(
    repository: Repository, arguments: list[str], reason: str
) -> None:
    refused(repository, *arguments, reason=reason)


def test_what_is_in_no_commit_is_in_no_release(repository: Repository) -> None:
    repository.write("new", "")
    refused(repository, "98.7.6", reason="the working tree has changes")


def test_a_release_has_something_in_it(repository: Repository) -> None:
    repository.write("CHANGELOG.md", CHANGELOG.replace("### Added\n\n- Something.\n\n", ""))
    repository.git("commit", "--quiet", "--all", "--message", "Empty")
    refused(repository, "98.7.6", reason="CHANGELOG.md has nothing under Unreleased")


def test_a_tag_is_never_moved(repository: Repository) -> None:
    repository.git("tag", "v98.7.6")
    refused(repository, "98.7.6", reason="the tag v98.7.6 is there already")


def test_a_place_that_lacks_the_version_is_no_half_release(repository: Repository) -> None:
    text = repository.read("hello/openapi.yaml")
    repository.write("hello/openapi.yaml", re.sub("\n  version: .*", "\n  version: 0", text))
    repository.git("commit", "--quiet", "--all", "--message", "Break")
    refused(repository, "98.7.6", reason="hello/openapi.yaml does not have the version")


def refused(repository: Repository, *arguments: str, reason: str) -> None:
    before = {name: repository.read(name) for name in NAMES}
    commits = repository.git("rev-list", "--all")
    done = repository.release(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"release: {reason}")
    assert done.stderr.endswith("; nothing was changed\n")
    assert {name: repository.read(name) for name in NAMES} == before
    assert repository.git("rev-list", "--all") == commits


def test_the_project_can_be_released() -> None:
    # What the script looks for is there: the section, with the heading of the next one or none.
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f'__version__ = "{hello.__version__}"' in (ROOT / "hello/__init__.py").read_text()
