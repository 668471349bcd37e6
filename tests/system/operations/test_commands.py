"""The commands that ask nobody but this host."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import hello
from hello.settings import Settings
from tests.support.processes import free_port
from tests.support.service import NO_SECRETS, Service

#: The console script, as the image runs it, and the module.
SCRIPT = Path(sys.executable).parent / "hello"
COMMANDS = [[str(SCRIPT)], [sys.executable, "-m", "hello"]]


def run(*arguments: str, command: list[str] = COMMANDS[1], **environ: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*command, *arguments],
        env={"SECRETS_DIR": NO_SECRETS} | environ,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=["hello", "python -m hello"])
def test_there_is_one_version(command: list[str]) -> None:
    assert run("--version", command=command) == (0, f"hello {hello.__version__}\n", "")


def test_settings_are_shown_in_columns() -> None:
    code, out, err = run("settings", DB_URI="postgresql://u:s3cret@h/d", CACHE_TTL="5")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == len(Settings.names()) + 2
    assert "s3cret" not in out
    assert re.fullmatch(r"DB_URI +secret +variable DB_URI", lines[1])
    [line] = [line for line in lines if line.startswith("CACHE_TTL ")]
    assert re.fullmatch(r"CACHE_TTL +5 +variable CACHE_TTL", line)
    assert len({line.rindex("default") for line in lines if line.endswith("default")}) == 1


@pytest.mark.parametrize(
    ("given", "row"),
    [("", "DB_ENGINE +auto +default"), ("citus", "DB_ENGINE +citus +variable DB_ENGINE")],
)
def test_an_engine_is_shown_by_its_name(given: str, row: str) -> None:
    code, out, _ = run("settings", DB_URI="postgresql://h/d", DB_ENGINE=given)
    assert code == 0
    [line] = [line for line in out.splitlines() if line.startswith("DB_ENGINE ")]
    assert re.fullmatch(row, line)


def test_a_wrong_setting_ends_it_with_a_line() -> None:
    line = "hello: PORT: must be a whole number from 0 to 65535\n"
    assert run("settings", PORT="high") == (2, "", line)


def test_the_help_of_serve_names_every_setting_and_gunicorns_help() -> None:
    code, out, err = run("serve", "--help", COLUMNS="500")
    assert (code, err) == (0, "")
    assert ", ".join(Settings.names()) in out
    assert "python -m gunicorn --help" in out


def test_a_healthcheck_asks_the_service_where_it_listens() -> None:
    with Service(HOST="0.0.0.0").wait_until() as service:
        assert run("healthcheck", HOST="0.0.0.0", PORT=str(service.port)) == (0, "", "")
    port = str(service.port)
    code, out, err = run("healthcheck", PORT=port)
    assert (code, out, err) == (
        1,
        "",
        f"hello: no answer on port {port}: Connection refused\n",
    )


def test_a_healthcheck_is_not_content_with_an_answer(tmp_path: Path) -> None:
    # The file has no schema: it answers, and is not ready.
    with Service(DB_URI=f"sqlite:///{tmp_path}/empty.db").wait_until(status=503) as service:
        code, _, err = run("healthcheck", PORT=str(service.port))
    assert (code, err) == (1, "hello: not ready: HTTP/1.1 503\n")


@pytest.mark.parametrize("port", ["0", "high", "65536"])
def test_a_healthcheck_needs_a_port(port: str) -> None:
    line = "hello: PORT: must be a whole number from 1 to 65535\n"
    assert run("healthcheck", PORT=port) == (2, "", line)


def test_a_healthcheck_imports_next_to_nothing() -> None:
    # It runs every few seconds beside the service.
    script = (
        "import sys; from hello.__main__ import main; main(['healthcheck']); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PORT": str(free_port()), "SECRETS_DIR": NO_SECRETS},
        capture_output=True,
        text=True,
    )
    loaded = done.stdout.split()
    assert {name for name in loaded if name.startswith("hello")} == {
        "hello",
        "hello.__main__",
        "hello.environment",
        "hello.healthcheck",
    }
    for heavy in ("gevent", "falcon", "peewee", "psycopg2", "redis", "regex", "http", "email"):
        assert heavy not in loaded


def test_a_host_that_a_shell_exports_breaks_no_start() -> None:
    with Service(HOST=socket.gethostname()).wait_until() as service:
        assert service.log.count("HOST is this machine's name") == 1
        assert "127.0.0.1" in service.log
    with Service(HOST="127.0.0.1").wait_until() as service:
        assert "machine's name" not in service.log
