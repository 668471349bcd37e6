"""How the service ends: what it has accepted is answered, and nothing keeps it."""

import os
import select
import shutil
import signal
import socket
import sqlite3
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from time import monotonic

import pytest

from tests.support.processes import eventually
from tests.support.service import Service, Wire, head, migrate

BIRTHDAY = b'{"dateOfBirth": "1990-05-17"}'

#: Seconds for which the service serves on after SIGTERM, before it closes what is idle.
SERVES_ON = 0.5


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "users.db"
    done = migrate(f"sqlite:///{path}")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def path(tmp_path: Path, migrated: Path) -> Path:
    """A database file with the current schema."""
    return Path(shutil.copy(migrated, tmp_path))


@pytest.fixture
def service(path: Path) -> Iterator[Service]:
    with Service(DB_URI=f"sqlite:///{path}").wait_until() as service:
        yield service


def put(name: str) -> bytes:
    return head(f"PUT /hello/{name}", "Content-Length: 29") + BIRTHDAY


def begin_put(service: Service, name: str) -> Wire:
    """A request in flight: the service waits for its body."""
    wire = service.wire()
    wire.send(head(f"PUT /hello/{name}", "Expect: 100-continue", "Content-Length: 29"))
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert wire.read(len(go_on)) == go_on
    # While this is answered, the application begins to read.
    with service.client() as client:
        client.request("GET", "/health/live")
    return wire


def wait_until_closed(service: Service) -> None:
    """Wait until the service accepts nothing more."""

    def refused() -> bool:
        try:
            service.connect().close()
        except ConnectionError:
            return True
        return False

    eventually(refused)


def ends(service: Service) -> bool:
    """Whether the service ends well, and long before GRACEFUL_TIMEOUT, which is 20 s."""
    return service.process.wait(5) == 0


def stored(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT username FROM users")}


def was_read(sock: socket.socket) -> bool:
    """Whether the service had read all that was sent on a connection that it closed.

    If not, the kernel tells so by a reset.
    """
    poll = select.poll()
    poll.register(sock, 0)
    return not poll.poll(1000)


class Visitor:
    """Sends one request after the other until the service refuses connections.

    It opens a new connection whenever an answer has said that this one ends. Every
    request must be answered, except where HTTP/1.1 leaves no way to: the service
    closed the connection before it read any of the request, and the connection was
    new, or idle for so long that the service could not know of the request.
    """

    def __init__(self, service: Service, name: str) -> None:
        self._service = service
        self._requests = [put(name), head(f"GET /hello/{name}")]
        self.answered = 0
        self.unread = 0
        self.lost: list[str] = []

    def run(self) -> None:
        while True:
            try:
                wire = self._service.wire()
            except ConnectionError:
                return
            with wire:
                self._visit(wire)

    def _visit(self, wire: Wire) -> None:
        before = None
        while True:
            request = self._requests[self.answered % 2]
            start = monotonic()
            try:
                wire.send(request)
                answer = wire.answer()
            except ConnectionError as ex:
                if was_read(wire.socket) or (before and start - before < SERVES_ON):
                    self.lost.append(f"{request[:30]!r}: {ex!r}")
                else:
                    self.unread += 1
                return
            if answer.status not in (200, 204):
                self.lost.append(f"{request[:30]!r}: {answer.status}")
            self.answered += 1
            if answer.headers["Connection"] == "close":
                return
            before = start


@contextmanager
def visits(service: Service, clients: int = 8) -> Iterator[list[Visitor]]:
    """Visitors who have begun when the block begins, and have left when it is over."""
    visitors = [Visitor(service, f"visitor{number}") for number in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(visitor.run) for visitor in visitors]
        try:
            eventually(lambda: all(visitor.answered > 20 for visitor in visitors), within=30)
            yield visitors
        finally:
            service.terminate()
    for future in running:
        future.result()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_load_loses_no_request(path: Path, workers: str) -> None:
    with Service(DB_URI=f"sqlite:///{path}", WEB_CONCURRENCY=workers).wait_until() as service:
        with visits(service) as visitors:
            service.terminate()
        assert ends(service)
        assert [request for visitor in visitors for request in visitor.lost] == []
        # Each has met the end of each worker once at most.
        assert sum(visitor.unread for visitor in visitors) <= len(visitors) * int(workers)
        assert "Traceback" not in service.log


def test_request_that_meets_the_closing_of_idle_connections(service: Service) -> None:
    """It is answered, unless none of it was read."""
    with ExitStack() as stack:
        wires = [stack.enter_context(service.wire()) for _ in range(600)]
        for wire in wires:
            wire.send(head("GET /health/live"))
            assert wire.answer().status == 200
        idle = wires.pop()
        service.terminate()
        begun = []
        for wire in wires:
            wire.send(head("PUT /hello/crossing", "Content-Length: 29"))
            begun.append(wire)
            if select.select([idle.socket], [], [], 0.001)[0]:
                break
        lost = []
        for wire in begun:
            try:
                wire.send(BIRTHDAY)
                answer = wire.answer("PUT")
            except ConnectionError as ex:
                if was_read(wire.socket):
                    lost.append(repr(ex))
            else:
                if answer.status != 204:
                    lost.append(str(answer.status))
    assert lost == []
    assert ends(service)
    assert "Traceback" not in service.log


def test_request_in_flight_is_finished(service: Service, path: Path) -> None:
    with begin_put(service, "in-flight") as wire:
        service.terminate()
        wait_until_closed(service)
        wire.send(BIRTHDAY)
        answer = wire.answer("PUT")
        assert (answer.status, answer.headers["Connection"]) == (204, "close")
        # The client does not close; nobody waits for it.
        assert ends(service)
    assert "in-flight" in stored(path)


def test_requests_that_wait_for_the_database_are_finished(service: Service, path: Path) -> None:
    names = {f"waiting{number}" for number in range(10)}
    with ExitStack() as stack:
        wires = [stack.enter_context(service.wire()) for _ in names]
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for wire, name in zip(wires, names, strict=True):
                wire.send(put(name))
            service.terminate()
            wait_until_closed(service)
            assert stored(path) == set()
        assert [wire.answer("PUT").status for wire in wires] == [204] * len(names)
    assert ends(service)
    assert stored(path) == names


def test_idle_connections_are_closed(service: Service) -> None:
    with service.wire() as unused, service.wire() as used:
        used.send(head("GET /"))
        assert used.answer().headers["Connection"] == "keep-alive"
        service.terminate()
        assert unused.closed()
        assert used.closed()
        assert ends(service)
    for word in ("Warning", "Traceback"):
        assert word not in service.log


def test_idle_connections_make_room_for_one_that_waits_to_be_accepted() -> None:
    command = [sys.executable, "-m", "hello", "serve", "--worker-connections", "2"]
    with Service(command).wait_until("/health/live") as service, ExitStack() as stack:
        idle = [stack.enter_context(service.wire()) for _ in range(2)]
        for wire in idle:
            wire.send(head("GET /"))
            assert wire.answer().headers["Connection"] == "keep-alive"
        waiting = stack.enter_context(service.wire())
        waiting.send(head("GET /"))
        service.terminate()
        assert waiting.answer().status == 200
        assert all(wire.closed() for wire in idle)
        assert ends(service)


def test_readiness_says_that_the_service_drains(service: Service) -> None:
    with service.wire() as ready, service.wire() as summary, service.wire() as live:
        probes = {ready: "/health/ready", summary: "/health", live: "/health/live"}
        for wire, path in probes.items():
            wire.send(head(f"GET {path}").removesuffix(b"\r\n"))
        service.terminate()
        wait_until_closed(service)
        for wire in probes:
            wire.send(b"\r\n")
        answers = [wire.answer() for wire in probes]
        assert [answer.status for answer in answers] == [503, 503, 200]
        assert answers[0].json == {"status": "draining"}
        assert answers[1].json["status"] == "draining"
        # Whoever is live is not restarted in the middle of it.
        assert answers[2].json == {"status": "live"}
        assert {answer.headers["Connection"] for answer in answers} == {"close"}
        assert ends(service)


def test_request_longer_than_graceful_timeout_is_cut() -> None:
    with (
        Service(GRACEFUL_TIMEOUT="1", BODY_TIMEOUT="60").wait_until() as service,
        begin_put(service, "endless") as wire,
    ):
        service.terminate()
        assert service.process.wait(10) == 0
        assert wire.closed()
        assert "1 requests were not answered in time" in service.log


@pytest.mark.parametrize(("number", "everyone"), [(signal.SIGQUIT, False), (signal.SIGINT, True)])
def test_quick_end(service: Service, number: signal.Signals, everyone: bool) -> None:
    with begin_put(service, "cut") as wire:
        # A terminal sends its Ctrl-C to every process.
        for pid in [service.process.pid, *(service.workers if everyone else [])]:
            os.kill(pid, number)
        assert ends(service)
        assert wire.closed()
    assert "Traceback" not in service.log


def test_quick_end_of_a_drain(service: Service) -> None:
    with begin_put(service, "cut") as wire:
        service.terminate()
        wait_until_closed(service)
        service.process.send_signal(signal.SIGINT)
        assert ends(service)
        assert wire.closed()


def test_killed_worker_is_replaced(service: Service) -> None:
    (killed,) = service.workers
    with service.client() as client:
        assert client.put("survivor", "1990-05-17").status == 204
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: service.workers not in ([], [killed]))
    service.wait_until()
    with service.client() as client:
        assert client.get("survivor").status == 200
        assert client.put("survivor", "1990-05-18").status == 204


def test_worker_does_not_outlive_its_master(service: Service) -> None:
    service.process.kill()
    service.process.wait()
    wait_until_closed(service)
