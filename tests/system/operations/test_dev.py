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

from tests.support.processes import eventually, free_port
from tests.support.service import Service

ROOT = Path(__file__).parents[3]


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


def answers(service: Service, text: str) -> None:
    """Wait until `GET /` is answered with a text."""

    def answered() -> bool:
        try:
            with service.client() as client:
                return text in client.request("GET", "/").body.decode()
        except ConnectionError:
            return False  # between two of them

    eventually(answered, within=20, message=f"no {text!r}:\n{service.log}")


def test_dev_serves_what_a_file_says_now(service: Service, copy: Path) -> None:
    source = copy / "hello" / "resources" / "root.py"
    source.write_text(source.read_text().replace("Hello, world!", "Hello, developer!"))
    answers(service, "Hello, developer!")
    # A module that is imported before the first fork.
    source = copy / "hello" / "middleware.py"
    source.write_text(source.read_text().replace('"nosniff"', '"sniff"'))

    def answered() -> bool:
        try:
            with service.client() as client:
                headers = client.request("GET", "/").headers
        except ConnectionError:
            return False
        return headers["X-Content-Type-Options"] == "sniff"

    eventually(answered, within=20)
    assert "Traceback" not in service.log


#: Of the application; of the worker; of the master; of gunicorn's settings.
MODULES = ["resources/root.py", "server/worker.py", "settings.py", "server/configuration.py"]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("def syntax error", "Error: expected '('"),
        ("import nowhere", "Error: No module named 'nowhere'"),
    ],
)
def test_dev_shows_an_error_once_and_recovers(
    service: Service, copy: Path, module: str, line: str, error: str
) -> None:
    source = copy / "hello" / module
    original = source.read_text()
    answers(service, "Hello, world!")
    source.write_text(f"{original}\n{line}\n")
    waiting = "waiting for a change of a source file"
    eventually(lambda: waiting in service.log, within=20, message=service.log)
    source.write_text(original)
    answers(service, "Hello, world!")
    assert service.log.count(error) == 1
    assert service.log.count(waiting) == 1
    assert service.process.poll() is None


def test_dev_ends_if_it_cannot_begin(copy: Path) -> None:
    with Service(command=["make", "-C", str(copy), "port=8080", "dev"], TIMEZONE="Mars") as service:
        assert service.process.wait(20) != 0
        assert service.log.count("hello: TIMEZONE: ") == 1


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
