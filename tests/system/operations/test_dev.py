"""What a developer types."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.checkout import copy_to
from tests.support.processes import eventually, free_port
from tests.support.service import Client, Service

ROOT = Path(__file__).parents[3]

HELP = re.compile(r"^# HELP (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what `make dev` needs, with a virtual environment that is installed."""
    path = tmp_path_factory.mktemp("dev")
    return copy_to(
        path, "hello", "scripts", "requirements", "Makefile", "setup.cfg", "pyproject.toml"
    )


def interrupt(service: Service) -> None:
    """Ctrl-C: the terminal tells everybody in its session."""
    with suppress(ProcessLookupError):
        os.killpg(service.process.pid, signal.SIGINT)


@contextmanager
def dev(copy: Path, **settings: str) -> Iterator[Service]:
    port = free_port()
    service = Service(["setsid", "make", "-C", str(copy), f"port={port}", "dev"], **settings)
    service.port = port
    try:
        yield service.wait_until()
    finally:
        interrupt(service)
        service.stop()


@pytest.fixture
def service(copy: Path) -> Iterator[Service]:
    with dev(copy) as service:
        yield service


@pytest.fixture(scope="module")
def admin_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def edited(copy: Path, admin_port: int) -> Iterator[Service]:
    """One whose files tests change, and write back as they were."""
    with dev(copy, ADMIN_PORT=str(admin_port)) as service:
        yield service


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


class Seen(NamedTuple):
    """What answers show of a service."""

    root: str
    sniffing: str
    put: int
    refusal: str
    get: int
    malformed: str
    #: What is said of each figure.
    help: list[str]


def look(service: Service, admin_port: int) -> Seen | None:
    """Ask for all of it; None while there is nobody who answers."""
    try:
        with service.client() as client, Client(admin_port) as admin, service.wire() as wire:
            root = client.request("GET", "/")
            put = client.put("alice", "1990-05-17")
            wire.send(b"GET / HTTP/9.9\r\n\r\n")
            return Seen(
                root.body.decode(),
                root.headers["X-Content-Type-Options"],
                put.status,
                client.put("not valid", "1990-05-17").json["title"],
                client.get("alice").status,
                wire.answer().json["detail"],
                HELP.findall(admin.request("GET", "/metrics").body.decode()),
            )
    except OSError:
        return None


class Edit(NamedTuple):
    """A change of one file, at its end if it replaces nothing, and how it is seen."""

    module: str
    old: str
    new: str
    shows: Callable[[Seen], bool]


#: One in each package of those that serve from memory; the first are loaded by the master too.
EDITS = [
    Edit("usernames.py", "MAX_LENGTH = 64", "MAX_LENGTH = 3", lambda seen: seen.put == 400),
    Edit(
        "telemetry/exposition.py",
        "Workers that answer requests.",
        "Workers, edited.",
        lambda seen: "hello_workers Workers, edited." in seen.help,
    ),
    Edit(
        "server/refusals.py",
        "The version must be",
        "The version, edited, must be",
        lambda seen: "edited" in seen.malformed,
    ),
    Edit("problems.py", "Invalid username", "Edited", lambda seen: seen.refusal == "Edited"),
    Edit("middleware.py", '"nosniff"', '"sniff"', lambda seen: seen.sniffing == "sniff"),
    Edit("resources/root.py", "Hello, world!", "Edited", lambda seen: "Edited" in seen.root),
    Edit(
        "database/sqlite.py",
        "",
        "\nSQLiteConnection.find = lambda *_: {}\n",
        lambda seen: seen.get == 404,
    ),
]


def test_dev_serves_what_a_file_says_now(edited: Service, copy: Path, admin_port: int) -> None:
    def shows(edit: Edit) -> bool:
        seen = look(edited, admin_port)
        return seen is not None and edit.shows(seen)

    first = eventually(lambda: look(edited, admin_port))
    for edit in EDITS:
        assert not edit.shows(first), edit.module
        source = copy / "hello" / edit.module
        original = source.read_text()
        if edit.old:
            assert edit.old in original, edit.module
            source.write_text(original.replace(edit.old, edit.new))
        else:
            source.write_text(original + edit.new)
        eventually(
            partial(shows, edit),
            within=20,
            message=f"no change of {edit.module} is seen:\n{edited.log}",
        )
        source.write_text(original)
    eventually(lambda: look(edited, admin_port) == first, within=20)
    assert "Traceback" not in edited.log


def answers(service: Service, text: str) -> None:
    """Wait until `GET /` is answered with a text."""

    def answered() -> bool:
        try:
            with service.client() as client:
                return text in client.request("GET", "/").body.decode()
        except ConnectionError:
            return False  # between two of them

    eventually(answered, within=20, message=f"no {text!r}:\n{service.log}")


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
    edited: Service, copy: Path, module: str, line: str, error: str
) -> None:
    source = copy / "hello" / module
    original = source.read_text()
    answers(edited, "Hello, world!")
    before = len(edited.log)
    source.write_text(f"{original}\n{line}\n")
    waiting = "waiting for a change of a source file"
    eventually(lambda: waiting in edited.log[before:], within=20, message=edited.log)
    source.write_text(original)
    answers(edited, "Hello, world!")
    log = edited.log[before:]
    assert log.count(error) == 1
    assert log.count(waiting) == 1
    assert edited.process.poll() is None


def test_dev_ends_if_it_cannot_begin(copy: Path) -> None:
    command = ["make", "-C", str(copy), "port=8080", "dev"]
    with Service(command, TIMEZONE="Mars") as service:
        assert service.process.wait(20) != 0
        assert service.log.count("hello: TIMEZONE: ") == 1


def make(copy: Path, *arguments: str, **environ: str) -> tuple[int, str]:
    """What `make` says, but for its own last line, and its exit code."""
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", str(copy), *arguments],
        env={"PATH": os.environ["PATH"]} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    lines = [line for line in done.stdout.splitlines() if not line.startswith("make: ***")]
    return done.returncode, "\n".join(lines)


@pytest.mark.parametrize("port", ["0", "65536", "http", ""])
def test_a_wrong_port_is_one_line(copy: Path, port: str) -> None:
    line = "hello: port: must be a whole number from 1 to 65535"
    assert make(copy, f"port={port}", "dev") == (2, line)


def test_a_taken_port_is_one_line(copy: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = make(copy, f"port={port}", "dev")
    assert (code, said) == (2, f"hello: port: {port} is taken; try: make port={port + 1} dev")


@pytest.fixture
def no_index(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody whose package index does not answer."""
    nowhere = {"PIP_INDEX_URL": f"http://127.0.0.1:{free_port()}/", "PIP_RETRIES": "0"}
    return nowhere | {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_CACHE_DIR": "1",
        "HOME": str(tmp_path),
    }


UNREACHABLE = "hello: the package index cannot be reached, and requirements/runtime.txt needs it"


def test_a_package_index_that_cannot_be_reached_is_one_line(
    copy: Path, tmp_path: Path, no_index: dict[str, str]
) -> None:
    code, said = make(copy, f"VENV={tmp_path}/venv", "dev", **no_index)
    assert (code, said.splitlines()[-1]) == (2, UNREACHABLE)
    assert said.count("hello: ") == 1
    assert "Traceback" not in said


def test_an_environment_that_was_not_finished_is_made_anew(
    copy: Path, tmp_path: Path, no_index: dict[str, str]
) -> None:
    venv = tmp_path / "venv"
    # As Ctrl-C leaves it, before pip is there.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    code, said = make(copy, f"VENV={venv}", "dev", **no_index)
    # It came as far as to ask for packages.
    assert (code, said.splitlines()[-1]) == (2, UNREACHABLE)
    assert list(venv.glob("lib/*/site-packages/pip-*.dist-info/RECORD"))


def test_a_python_without_ensurepip_is_one_line(
    copy: Path, tmp_path: Path, no_index: dict[str, str]
) -> None:
    # As Debian's is without its package python3-venv.
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\ncase $2 in *ensurepip*) exit 1 ;; *) exec {sys.executable} "$@" ;; esac\n'
    )
    python.chmod(0o755)
    venv = tmp_path / "venv"
    code, said = make(copy, f"PYTHON={python}", f"VENV={venv}", "dev", **no_index)
    line = (
        f"hello: '{python}' has no ensurepip, which puts pip into {venv}: install Debian's"
        " python3-venv, or try: make PYTHON=python3.13 …"
    )
    assert (code, said) == (2, line)
    assert not venv.exists()


def test_a_python_that_is_named_is_not_ignored(copy: Path, tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\ncase $2 in *print*) echo 3.9.1 /old ;; *) exit 1 ;; esac\n")
    old.chmod(0o755)
    code, said = make(copy, f"PYTHON={old}", "dev")
    line = f"hello: Python 3.11 or newer is needed; '{old}' is 3.9.1. Try: make PYTHON=python3.13 …"
    assert (code, said) == (2, line)


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
