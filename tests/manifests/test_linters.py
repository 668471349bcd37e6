"""What linters say of the image, the scripts and the manifests."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support.programs import find

ROOT = Path(__file__).parents[2]


def run(program: str, *arguments: str | Path, status: int = 0, cwd: Path = ROOT) -> str:
    """What a linter writes that ends with this status; skips the test where there is none."""
    path = find(program)
    if path is None:
        pytest.skip(f"needs {program}")
    done = subprocess.run([path, *arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("crash", ["exit 3", "kill -9 $$"])
def test_a_linter_that_crashes_without_a_word_has_not_found_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    linter = tmp_path / "linter"
    linter.write_text(f"#!/bin/sh\n{crash}\n")
    linter.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(AssertionError):
        run("linter")


def test_hadolint_finds_nothing() -> None:
    assert run("hadolint", "Dockerfile") == ""


def test_shellcheck_finds_nothing() -> None:
    files = [
        ROOT / ".ci" / "run",
        *(ROOT / "manifests").rglob("*"),
        *(ROOT / "scripts").rglob("*"),
    ]
    ours = [file for file in files if file.is_file() and "node_modules" not in file.parts]
    scripts = [file for file in ours if file.read_bytes()[:2] == b"#!"]
    shells = [file for file in scripts if b"sh" in file.read_bytes().splitlines()[0]]
    assert len(shells) >= 8
    assert run("shellcheck", *shells) == ""


def test_checkov_finds_what_is_skipped_for_a_reason_and_nothing_else(tmp_path: Path) -> None:
    text = (ROOT / ".checkov.yaml").read_text()
    configuration = yaml.safe_load(text)
    skipped = configuration.pop("skip-check")
    lines = text.splitlines()
    for check in skipped:
        above = lines[lines.index(f"  - {check}") - 1]
        assert above.startswith("  # "), f"no reason is given for {check}"

    # In a tree without the file, which checkov would find.
    tree = tmp_path / "tree"
    tree.mkdir()
    shutil.copy(ROOT / "Dockerfile", tree)
    shutil.copytree(ROOT / "manifests", tree / "manifests")
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump(configuration))
    found = run("checkov", "--config-file", file, status=1, cwd=tree)
    failed = {line.split()[1].rstrip(":") for line in found.splitlines() if line[:6] == "Check:"}
    assert failed == set(skipped)


#: Pinned, since what the recommended rules are changes with it.
REDOCLY = "@redocly/cli@2.77.0"


@pytest.fixture
def redocly(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Redocly's CLI; skips the test where it cannot be had."""
    npx = shutil.which("npx")

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(npx), "--yes", REDOCLY, *arguments],
            cwd=tmp_path,  # no configuration but its own
            env=os.environ
            | {
                "npm_config_ignore_scripts": "true",
                "npm_config_fetch_retries": "0",
                "REDOCLY_TELEMETRY": "off",
                "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true",
            },
            capture_output=True,
            text=True,
            timeout=180,
        )

    if npx is None or run("--version").returncode != 0:
        pytest.skip("needs Redocly's CLI, with Node.js, from npm")
    return run


def test_redocly_finds_nothing_by_its_recommended_rules(
    redocly: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    def found(description: Path) -> dict[str, int]:
        done = redocly("lint", "--extends", "recommended", "--format", "json", description)
        return json.loads(done.stdout)["totals"]

    good = ROOT / "hello" / "openapi.yaml"
    assert found(good) == {"errors": 0, "warnings": 0, "ignored": 0}
    bad = tmp_path / "openapi.yaml"
    bad.write_text(good.read_text("utf-8").replace("security: []\n", ""), "utf-8")
    assert found(bad)["errors"] > 0
