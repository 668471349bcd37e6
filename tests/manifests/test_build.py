"""`make build`: what the image is told of its commit and of its base.

Tested with a `docker` that keeps a record of its arguments.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.programs import find

ROOT = Path(__file__).parents[2]
LABEL = "org.opencontainers.image"
DIGEST = f"sha256:{'5' * 64}"
COMMITTED = "2026-11-24T10:00:00+01:00"


class Checkout:
    """What `make build` reads, in a directory that no repository is around."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "checkout"
        self.record = directory / "record"
        (self.path / "scripts").mkdir(parents=True)
        (self.path / "hello").mkdir()
        shutil.copy(ROOT / "Makefile", self.path)
        shutil.copy(ROOT / "scripts" / "image-arguments", self.path / "scripts")
        (self.path / "hello" / "__init__.py").write_text('__version__ = "1.2.3"\n')
        programs = directory / "bin"
        programs.mkdir()
        docker = programs / "docker"
        docker.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >"$RECORD"\n')
        docker.chmod(0o755)
        self._environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "RECORD": str(self.record),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_CEILING_DIRECTORIES": str(directory),
            "GIT_COMMITTER_DATE": COMMITTED,
        }
        for who in ("AUTHOR", "COMMITTER"):
            self._environment |= {f"GIT_{who}_NAME": "test", f"GIT_{who}_EMAIL": "test@test"}

    def commit(self) -> str:
        for arguments in (["init"], ["add", "."], ["commit", "--message", "Begin"]):
            self._run("git", *arguments)
        return self._run("git", "rev-parse", "HEAD").stdout.strip()

    def change(self) -> None:
        (self.path / "hello" / "__init__.py").write_text('# changed\n__version__ = "1.2.3"\n')

    def build(self, *variables: str) -> list[str]:
        """The arguments of docker: `--build-arg` and `--label` with what follows as one."""
        done = self._run("make", "build", *variables)
        assert done.stderr == ""
        arguments = iter(self.record.read_text().splitlines())
        assert [next(arguments) for _ in range(3)] == ["build", "--tag", "hello:dev"]
        return [
            f"{each} {next(arguments)}" if each.startswith("--") else each for each in arguments
        ]

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.path,
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.skipif(find("git") is None, reason="needs git: an image is made of a commit")
def test_an_image_says_of_which_commit_it_is(checkout: Checkout) -> None:
    revision = checkout.commit()
    told = [
        "--build-arg VERSION=1.2.3",
        f"--build-arg REVISION={revision}",
        f"--label {LABEL}.created={COMMITTED}",
        ".",
    ]
    assert checkout.build() == told
    checkout.change()
    told[1] += "-dirty"
    assert checkout.build() == told


def test_sources_without_git_make_an_image_that_says_nothing_of_a_commit(
    checkout: Checkout,
) -> None:
    assert checkout.build() == ["--build-arg VERSION=1.2.3", "."]


@pytest.mark.parametrize(
    ("base", "labels"),
    [
        ("python:3.13-slim", []),
        (
            f"python:3.13-slim@{DIGEST}",
            ["base.name=python:3.13-slim", f"base.digest={DIGEST}"],
        ),
    ],
)
def test_a_base_that_has_a_digest_is_named_without_and_with_it(
    checkout: Checkout, base: str, labels: list[str]
) -> None:
    assert checkout.build(f"BASE={base}") == [
        "--build-arg VERSION=1.2.3",
        f"--build-arg BASE={base}",
        *[f"--label {LABEL}.{label}" for label in labels],
        ".",
    ]
