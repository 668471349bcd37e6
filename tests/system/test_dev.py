"""What a developer types."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system.processes import eventually, free_port
from tests.system.service import Service

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what `make dev` needs, with a virtual environment that is installed."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("hello", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    environment = tmp_path / ".venv"
    environment.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name != "ready":
            (environment / entry.name).symlink_to(entry)
    (environment / "ready").touch()
    return tmp_path


def interrupt(service: Service) -> None:
    """Ctrl-C: the terminal tells everybody in its session."""
    with suppress(ProcessLookupError):
        os.killpg(service.process.pid, signal.SIGINT)


@pytest.fixture
def service(copy: Path) -> Iterator[Service]:
    port = free_port()
    service = Service(command=["setsid", "make", "-C", str(copy), f"port={port}", "dev"])
    service.port = port
    try:
        yield service.wait_until()
    finally:
        interrupt(service)
        service.stop()


def curl_lines(log: str) -> list[list[str]]:
    return [shlex.split(line) for line in log.splitlines() if line.lstrip().startswith("curl ")]


def test_dev_says_what_to_try_and_ends_with_ctrl_c(service: Service) -> None:
    url = f"http://localhost:{service.port}/"
    assert f"  {url}\n  {url}docs\n" in service.log
    put, get = curl_lines(service.log)
    assert put == ["curl", "-X", "PUT", "-d", '{"dateOfBirth": "1990-05-17"}', f"{url}hello/alice"]
    assert get == ["curl", f"{url}hello/alice"]
    with service.client() as client:
        form = {"Content-Type": "application/x-www-form-urlencoded"}  # what curl says
        assert client.request("PUT", "/hello/alice", put[4], form).status == 204
        assert client.get("alice").json["message"].startswith("Hello, alice! ")
        # A developer sees the requests.
        eventually(lambda: "GET 200" in service.log)
        interrupt(service)
        service.process.wait(10)
    with pytest.raises(ConnectionError):
        service.connect()
    assert "Traceback" not in service.log


def test_dev_restarts_the_worker_when_a_file_changes(service: Service, copy: Path) -> None:
    source = copy / "hello" / "resources" / "root.py"
    original = source.read_text()

    def answers(status: int, text: str) -> None:
        def answered() -> bool:
            try:
                with service.client() as client:
                    answer = client.request("GET", "/")
            except ConnectionError:
                return False  # between two workers
            return answer.status == status and text in answer.body.decode()

        eventually(answered, within=20, message=f"no {text!r}:\n{service.log}")

    answers(200, "Hello, world!")
    source.write_text(original.replace("Hello, world!", "Hello, developer!"))
    answers(200, "Hello, developer!")
    source.write_text(original + "\ndef syntax error\n")
    answers(500, "SyntaxError")
    source.write_text(original)
    answers(200, "Hello, world!")


@pytest.mark.parametrize("arguments", [[], ["help"]])
def test_help_lists_every_target(arguments: list[str]) -> None:
    done = subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory", *arguments],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    listed = re.findall(r"^  make (\S+) +\S", done.stdout, re.MULTILINE)
    phony = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(" ".join(phony).split())
    assert done.stderr == ""
