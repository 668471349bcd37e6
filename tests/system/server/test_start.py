"""How each command begins, and how it ends if it cannot."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.postgres import Cluster
from tests.support.processes import eventually, free_port
from tests.support.service import Service

COMMANDS = ["serve", "migrate", "migrate --check", "migrate --down", "check", "forget alice"]

GUNICORN = [sys.executable, "-m", "gunicorn", "-c", "python:hello.server", "hello.app:wsgi()"]


def run(command: list[str], **settings: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], "PORT": str(free_port()), "ADMIN_PORT": "0"} | settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def hello(command: str, **settings: str) -> subprocess.CompletedProcess:
    return run([sys.executable, "-m", "hello", *command.split()], **settings)


def refused(done: subprocess.CompletedProcess[str], name: str) -> str:
    """The one line that a command ends with if a setting is wrong."""
    [line] = (done.stdout + done.stderr).splitlines()
    assert f"{name}: " in line
    assert done.returncode == 2
    return line


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("name", "text"), [("WEB_CONCURRENCY", "s3cret"), ("PORT", "s3cret"), ("DB_URI", "s3cret")]
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(command: str, name: str, text: str) -> None:
    assert "s3cret" not in refused(hello(command, **{name: text}), name)


@pytest.mark.parametrize("name", ["PORT", "DB_URI", "TIMEZONE"])
def test_gunicorn_stops_with_the_same_line(name: str) -> None:
    line = refused(run(GUNICORN, **{name: "s3cret"}), name)
    assert line.startswith(f"hello: {name}: ")
    assert "s3cret" not in line


#: Settings that are wrong because of what is on this machine.
WRONG_HERE = [
    ("HOST", "a" * 64),
    ("HOST", "192.0.2.1"),  # of nobody (RFC 5737)
    ("HOST", "2001:db8::1"),
    ("SECRETS_DIR", "/nonexistent"),
    ("SECRETS_DIR", __file__),
    ("DB_URI", "sqlite:////nonexistent/hello.db"),
]


@pytest.mark.parametrize(("name", "text"), WRONG_HERE)
def test_what_cannot_be_used_stops_the_start(name: str, text: str) -> None:
    assert refused(hello("serve", **{name: text}), name).startswith(f"hello: {name}: ")


def test_the_start_says_what_it_serves(shared_cluster: Cluster, database: str) -> None:
    with Service(DB_URL=shared_cluster.uri(database)).wait_until() as service:  # misspelt
        assert service.log.count("serving SQLite in memory") == 1
    settings = {
        "DB_URI": shared_cluster.uri(database),
        "DB_READ_URI": shared_cluster.uri(database),
        "CACHE_URI": f"redis://:s3cret@127.0.0.1:{free_port()}",
    }
    with Service(**settings).wait_until() as service:
        assert service.log.count("serving PostgreSQL, 1 replica, a cache") == 1
        assert "s3cret" not in service.log


def test_options_for_gunicorn_that_cannot_be_split() -> None:
    refused(hello("serve", GUNICORN_CMD_ARGS="--workers 's3cret"), "GUNICORN_CMD_ARGS")


def test_what_gunicorn_would_read_from_the_environment_does_not_matter() -> None:
    # It fails on each of these before it has read a line of this project.
    with Service(WEB_CONCURRENCY="", FORWARDED_ALLOW_IPS="nobody").wait_until():
        pass


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "soon"])
@pytest.mark.parametrize("option", ["migrate --wait", "check --timeout"])
def test_a_wait_has_an_end(option: str, seconds: str) -> None:
    done = hello(f"{option}={seconds}")
    assert done.returncode == 2
    assert "must be a number of seconds" in done.stderr


def test_to_migrate_without_a_server_is_one_line() -> None:
    # Two addresses, of which neither accepts: libpq has two lines and more to say.
    uri = f"postgresql://postgres@127.0.0.1:{free_port()},localhost:{free_port()}/hello"
    for command, code in (("migrate", 1), ("migrate --down", 1), ("migrate --check", 3)):
        done = hello(command, DB_URI=uri)
        assert (done.returncode, done.stdout) == (code, "")
        [line] = done.stderr.splitlines()
        assert line.startswith("hello: ")
        assert line.count("refused") >= 2


def test_a_secret_that_becomes_wrong_ends_no_master(
    shared_cluster: Cluster, database: str, tmp_path: Path
) -> None:
    """A worker that is replaced meanwhile answers as if the database were away."""
    secret = tmp_path / "DB_URI"
    secret.write_text(shared_cluster.uri(database))
    with Service(SECRETS_DIR=str(tmp_path)).wait_until() as service:
        (killed,) = service.workers
        secret.write_text("postgresql://s3cret@host:port/")
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: service.workers not in ([], [killed]))
        service.wait_until("/health/live").wait_until("/hello/nobody", 503)
        assert "DB_URI: " in service.log
        assert "s3cret" not in service.log
        secret.write_text(shared_cluster.uri(database))
        service.wait_until("/hello/nobody", 404)
