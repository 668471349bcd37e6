"""Every place that names a version of Python names those that are tested."""

import configparser
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def python_versions() -> list[str]:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    [job] = workflow["jobs"].values()
    python: list[str] = job["strategy"]["matrix"]["python"]
    return python


def test_the_images_python_is_one_that_was_tested_on_the_same_system() -> None:
    base = re.search(r"^ARG BASE=python:(\S+)-slim-(\w+)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert base
    assert base[1] in python_versions()
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert f"container: python:${{{{ matrix.python }}}}-{base[2]}\n" in workflow


def test_the_package_claims_what_is_tested() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    claimed = re.findall(r"Python :: (3\.\d+)", setup["metadata"]["classifiers"])
    assert claimed == python_versions()
    assert setup["options"]["python_requires"] == f">={claimed[0]}"
    project = (ROOT / "pyproject.toml").read_text()
    assert f'target-version = "py{claimed[0].replace(".", "")}"' in project
    assert f"--python-version {claimed[0]} " in (ROOT / "scripts" / "lock").read_text()


def test_a_machine_with_several_tries_all_of_them() -> None:
    [minors] = re.findall(r"^for minor in ([\d ]+); do$", (ROOT / ".ci" / "run").read_text(), re.M)
    assert [f"3.{minor}" for minor in minors.split()] == python_versions()


def test_ci_runs_the_same_everywhere() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    [job] = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]


def test_no_release_is_taken_within_a_week() -> None:
    bot = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())
    for update in bot["updates"]:
        assert update["cooldown"]["default-days"] >= 7, update["package-ecosystem"]
    assert '--exclude-newer "7 days"' in (ROOT / "scripts" / "lock").read_text()


def test_the_labels_of_the_image_are_those_of_the_package() -> None:
    labels = dict(
        re.findall(
            r'org\.opencontainers\.image\.([\w.]+)="(.*?)"', (ROOT / "Dockerfile").read_text()
        )
    )
    package = configparser.ConfigParser()
    package.read(ROOT / "setup.cfg")
    assert labels["licenses"] == package["metadata"]["license_expression"]
    assert labels["source"] == package["metadata"]["url"]
    # Their build arguments.
    assert labels["version"] == "${VERSION}"
    assert labels["revision"] == "${REVISION}"
    assert labels["base.name"] == "${BASE}"
