"""SIGUSR2: another master, of what is installed by now, takes over the sockets of the old one."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.processes import eventually, free_port
from tests.support.service import Client, Service, load, migrate

SETTINGS = ("-c", "python:hello.server", "hello.app:wsgi()")

COMMANDS = {
    "python -m hello serve": [sys.executable, "-m", "hello", "serve"],
    "python -m gunicorn": [sys.executable, "-m", "gunicorn", *SETTINGS],
    "gunicorn": [str(Path(sys.executable).with_name("gunicorn")), *SETTINGS],
}


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def masters() -> Iterator[list[int]]:
    """Masters that a test has met, which are ended after it: the later ones are no child of it."""
    found: list[int] = []
    yield found
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGQUIT)
    eventually(lambda: not any(map(alive, found)))


def begin(master: int) -> int:
    """Send SIGUSR2, and wait for the new master."""
    before = children(master)

    def begun() -> set[int]:
        # It is ignored until the end of another one is known.
        os.kill(master, signal.SIGUSR2)
        with suppress(AssertionError):
            return eventually(lambda: children(master) - before, within=2)
        return set()

    [new] = eventually(begun, within=20)
    return new


def upgrade(master: int, masters: list[int]) -> int:
    """Begin with a new master, and wait for its workers."""
    new = begin(master)
    masters.append(new)
    eventually(lambda: children(new), within=60)
    return new


def metrics(port: int) -> bool:
    with suppress(OSError), Client(port) as client:
        return b"hello_http_requests_total" in client.request("GET", "/metrics").body
    return False


@pytest.mark.parametrize("command", COMMANDS)
def test_a_second_master_takes_over_without_a_failed_request(
    tmp_path: Path, masters: list[int], command: str
) -> None:
    uri = f"sqlite:///{tmp_path}/users.db"
    assert migrate(uri).returncode == 0
    admin = free_port()
    settings = {"DB_URI": uri, "WEB_CONCURRENCY": "2", "ADMIN_PORT": str(admin)}
    failed: list[str] = []

    def visit(client: Client, number: int) -> None:
        try:
            statuses = attempt(client, number)
        except OSError:
            # It was closed while it was idle: every HTTP client asks once more, on a new one.
            client.close()
            try:
                statuses = attempt(client, number)
            except OSError as ex:
                failed.append(repr(ex))
                client.close()
                return
        if statuses != (204, 200):
            failed.append(str(statuses))

    def attempt(client: Client, number: int) -> tuple[int, int]:
        return (
            client.put(f"user-{number}", "1990-05-17").status,
            client.get(f"user-{number}").status,
        )

    with Service(COMMANDS[command], **settings).wait_until() as service:
        first = service.process.pid
        with load(service, 4, visit) as visits:
            visits.go_on()
            second = upgrade(first, masters)
            visits.go_on()  # both serve
            assert service.process.poll() is None
            service.terminate()
            assert service.process.wait(30) == 0
            visits.go_on()
        assert failed == []
        assert alive(second)
        assert metrics(admin)
        assert "Traceback" not in service.log


def test_a_second_master_with_a_wrong_setting_leaves_the_first_one_alone(
    tmp_path: Path, masters: list[int]
) -> None:
    (tmp_path / "TIMEZONE").write_text("UTC")
    with Service(SECRETS_DIR=str(tmp_path)).wait_until() as service, service.client() as client:
        (tmp_path / "TIMEZONE").write_text("Mars/Olympus")
        second = begin(service.process.pid)
        eventually(lambda: not alive(second))
        assert "hello: TIMEZONE: must be" in service.log
        assert client.get("nobody").status == 404
        # It can be tried again.
        (tmp_path / "TIMEZONE").write_text("UTC")
        second = upgrade(service.process.pid, masters)
        service.terminate()
        assert service.process.wait(30) == 0
        assert alive(second)
