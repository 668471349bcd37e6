"""The border between gunicorn's master and its workers: what the master imports.

What it holds is shared by its forks, and is as old as the master. See hello/server/__init__.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import eventually, free_port
from tests.support.service import NO_SECRETS, Service

#: Packages of which the master may import any module, but for some.
PACKAGES = ("hello.server", "hello.telemetry")
#: Parts of them that need Falcon.
FOR_WORKERS = {"hello.server.refusals", "hello.telemetry.exposition"}

#: What else the master may import: the settings, and what they are checked by.
MODULES = {
    "hello",
    "hello.lifecycle",
    "hello.settings",
    "hello.declaration",
    *("hello.environment", "hello.errors", "hello.uris"),
    *("hello.cache", "hello.cache.uri", "hello.resolver"),
    *("hello.database", "hello.database.engine"),
    *("hello.time_zones", "hello.usernames"),
}

#: A master that has started as far as it can without a fork: it listens, on the admin port too.
MASTER = """
import sys
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.arbiter import Arbiter

arbiter = Arbiter(WSGIApplication(prog="gunicorn"))
arbiter.start()
assert arbiter.LISTENERS
assert arbiter.worker_class.__name__ == "Worker"
print("imported", *sys.modules)
"""


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """The modules of a master that could serve."""
    done = subprocess.run(
        [sys.executable, "-c", MASTER, "-c", "python:hello.server", "hello.app:wsgi()"],
        env={
            "PATH": os.environ["PATH"],
            "PORT": str(free_port()),
            "ADMIN_PORT": str(free_port()),
            "SECRETS_DIR": NO_SECRETS,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("imported ")]
    return set(line.split()[1:])


def test_master_imports_the_configuration_the_logger_and_the_worker(imported: set[str]) -> None:
    assert imported >= {
        "hello.server.configuration",
        "hello.server.worker",
        "hello.telemetry.logs",
        "hello.telemetry.admin",
    }


def test_master_imports_nothing_of_the_application(imported: set[str]) -> None:
    mine = {name for name in imported if name.partition(".")[0] == "hello"}
    may = {name for name in mine if name.startswith(PACKAGES)} - FOR_WORKERS | MODULES
    assert mine - may == set()


@pytest.mark.parametrize("library", ["falcon", "peewee"])
def test_master_imports_no_library_of_the_application(imported: set[str], library: str) -> None:
    assert library not in imported


def test_worker_starts_only_with_the_configuration() -> None:
    command = [
        *(sys.executable, "-m", "gunicorn", "--no-control-socket"),
        *("--bind", f"127.0.0.1:{free_port()}"),
        *("--worker-class", "hello.server.worker.Worker", "hello.app:wsgi()"),
    ]
    with Service(command) as service:
        eventually(lambda: "start gunicorn with -c python:hello.server" in service.log)


def test_somebody_may_have_hooks_of_their_own_on_top_of_the_configuration(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from hello.server import *\n"
        "from hello.server import on_starting as begin\n\n"
        "def on_starting(server):\n"
        "    begin(server)\n"
    )
    command = [sys.executable, "-m", "gunicorn", "-c", str(own), "hello.app:wsgi()"]
    with Service(command).wait_until() as service, service.client() as client:
        assert client.put("alice", "1990-05-17").status == 204
