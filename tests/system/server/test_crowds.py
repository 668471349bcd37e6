"""More connections than there is room for, all of them useless, beside clients like any other."""

import os
import re
import resource
import select
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.processes import eventually, free_port
from tests.support.service import PATIENT, SERVE, Client, Service, Wire, head, migrate

BIRTHDAY = b'{"dateOfBirth": "1990-05-17"}'

#: Connections that there is room for, and those that come.
ROOM, CROWD = 40, 200


def silent(wire: Wire) -> None:
    pass


def once_asked(wire: Wire) -> None:
    wire.send(head("GET /"))
    assert wire.answer().status == 200


def begun_head(wire: Wire) -> None:
    wire.send(b"GET / HTTP/1.1\r\nHost:")


def begun_body(wire: Wire) -> None:
    wire.send(head("PUT /hello/crowd", "Content-Length: 29") + BIRTHDAY[:10])


def begun_chunks(wire: Wire) -> None:
    wire.send(head("PUT /hello/crowd", "Transfer-Encoding: chunked") + b"1d\r\n" + BIRTHDAY[:10])


def never_reading(wire: Wire) -> None:
    """Ask for more than the buffers hold."""
    wire.socket.setblocking(False)
    requests = head("GET /docs/page.js") * 200
    with suppress(BlockingIOError):
        while requests:
            requests = requests[wire.socket.send(requests) :]


KINDS = [silent, once_asked, begun_head, begun_body, begun_chunks, never_reading]


@contextmanager
def crowd(service: Service, begin: Callable[[Wire], None], size: int) -> Iterator[list[Wire]]:
    """Connections that have begun, and stay until the block ends or the service closes them."""
    with ExitStack() as stack:
        wires = []
        for _ in range(size):
            wire = stack.enter_context(service.wire())
            with suppress(OSError, ValueError):
                begin(wire)
            wires.append(wire)
        yield wires


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service(MAX_CONNECTIONS=str(ROOM)).wait_until() as service:
        yield service


@pytest.mark.parametrize("begin", KINDS, ids=lambda kind: kind.__name__)
def test_crowd_locks_nobody_out(service: Service, begin: Callable[[Wire], None]) -> None:
    with service.client(timeout=5) as kept:
        assert kept.put("kept", "1990-05-17").status == 204
        for _ in range(3):
            with crowd(service, begin, CROWD // 3):
                for number in range(5):
                    if begin in (once_asked, never_reading):
                        kept.close()  # it may be idle for longer than the crowd
                    assert kept.get("kept").status == 200
                    with service.client(timeout=5) as newcomer:
                        assert newcomer.request("GET", "/health/live").status == 200
                        assert newcomer.put(f"new{number}", "1990-05-17").status == 204
    assert "Traceback" not in service.log


def test_liveness_is_asked_where_no_crowd_is() -> None:
    admin = free_port()
    with (
        Service(MAX_CONNECTIONS=str(ROOM), ADMIN_PORT=str(admin)).wait_until() as service,
        crowd(service, silent, CROWD),
        Client(admin, timeout=5) as prober,
    ):
        assert prober.request("GET", "/health/live").json == {"status": "live"}
        figures = prober.request("GET", "/metrics").body.decode()
        assert re.search(r"^hello_connections [1-9]", figures, re.M)
        assert re.search(r"^hello_connections_given_way_total [1-9]", figures, re.M)


def test_newcomers_have_the_time_to_send_beside_a_crowd_that_asks(service: Service) -> None:
    """Whoever is far away sends a while after it was accepted."""
    with ExitStack() as stack:
        for wire in [stack.enter_context(service.wire()) for _ in range(ROOM)]:
            wire.send(head("GET /"))
        newcomer = stack.enter_context(service.wire())
        for _ in range(ROOM // 2):  # more than are left alone
            once_asked(stack.enter_context(service.wire()))
        newcomer.send(head("GET /"))
        assert newcomer.answer().status == 200


def test_one_client_that_sends_too_much_ends_nobody_else(service: Service) -> None:
    """What it sends is dropped as it comes, and is no reason to end others."""
    with ExitStack() as stack:
        others = [stack.enter_context(service.wire()) for _ in range(10)]
        for other in others:
            other.send(head("GET /"))
            assert other.answer().status == 200
            other.send(b"GET / HTTP/1.1\r\n")
        flood = stack.enter_context(service.wire())
        with suppress(OSError):
            flood.send(head("PUT /hello/flood", "Transfer-Encoding: chunked"))
            for _ in range(1200):
                flood.send(b"1;a=" + b"b" * 8000 + b"\r\n \r\n")
        for other in others:
            other.send(b"Host: hello\r\n\r\n")
            assert other.answer().status == 200


def test_unread_answers_are_bounded() -> None:
    with Service(MAX_CONNECTIONS="2000").wait_until() as service, ExitStack() as stack:
        for _ in range(600):
            wire = stack.enter_context(service.wire())
            wire.socket.setblocking(False)
            with suppress(BlockingIOError):
                wire.socket.send(head("GET /openapi.yaml") * 200)
        with service.client(timeout=5) as client:
            eventually(
                lambda: (
                    client.request("GET", "/health/live").status == 200
                    and "unsent or unread" in service.log
                )
            )


def test_those_that_never_asked_give_way_first(service: Service) -> None:
    with service.client() as kept, ExitStack() as stack:
        assert kept.get("nobody").status == 404
        sock = kept._connection.sock
        wires = [stack.enter_context(service.wire()) for _ in range(ROOM + 10)]
        eventually(lambda: any(select.select([wire.socket], [], [], 0)[0] for wire in wires))
        assert kept.get("nobody").status == 404
        assert kept._connection.sock is sock, "the connection was closed, and opened anew"


def unread(service: Service) -> list[int]:
    """How many bytes the service has not read, for each connection that it has open."""
    established, half_closed = "01", "08"
    queues = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, sizes, *_ = line.split()
        if int(local[-4:], 16) == service.port and state in (established, half_closed):
            queues.append(int(sizes.split(":")[1], 16))
    return queues


def test_requests_in_flight_never_give_way(tmp_path: Path) -> None:
    """All places are taken by requests that wait for the database, and one more is."""
    path = tmp_path / "hello.db"
    uri = f"sqlite:///{path}"
    assert migrate(uri).returncode == 0
    with (
        Service(DB_URI=uri, MAX_CONNECTIONS="4", **PATIENT).wait_until() as service,
        ExitStack() as stack,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        eventually(lambda: not unread(service))
        wires = []
        for number in range(5):
            wire = stack.enter_context(service.wire())
            wire.send(head(f"PUT /hello/busy{number}", "Content-Length: 29") + BIRTHDAY)
            wires.append(wire)
            eventually(lambda: unread(service) == [0] * len(wires))
        waiting = stack.enter_context(service.wire())
        waiting.send(head("GET /"))
        eventually(lambda: "connections are taken" in service.log)
        other.execute("ROLLBACK")
        assert [wire.answer("PUT").status for wire in wires] == [204] * 5
        # They are kept, and idle: one of them gives way.
        assert waiting.answer().status == 200


def test_new_connection_has_the_time_of_a_head_for_its_first_byte() -> None:
    with Service(HEAD_TIMEOUT="0.5").wait_until() as service, service.client() as kept:
        assert kept.get("nobody").status == 404
        sock = kept._connection.sock
        with service.wire() as wire:
            assert wire.closed()
        # Which is not for the next request.
        assert kept.get("nobody").status == 404
        assert kept._connection.sock is sock


def test_begun_heads_hold_a_bounded_memory() -> None:
    """Each may be 64 KiB long, but not all of a crowd at once."""
    begun = b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10_000
    with Service(MAX_CONNECTIONS="2000").wait_until() as service, ExitStack() as stack:
        (worker,) = service.workers

        def resident() -> int:
            return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096

        before, sent = resident(), 0
        for _ in range(1500):
            wire = stack.enter_context(service.wire())
            with suppress(OSError):
                wire.send(begun)
            sent += len(begun)
        with service.client(timeout=5) as client:
            assert client.request("GET", "/health/live").status == 200
        # 8 MiB are held, in twice the memory, and more was for a moment.
        assert resident() - before < sent / 2


def files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def exhaust_files(pid: int) -> None:
    """Let the process open no file more."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (files(pid), hard))


def test_files_used_up_while_serving() -> None:
    with Service().wait_until() as service, ExitStack() as stack:
        (worker,) = service.workers
        with service.client(timeout=5) as kept:
            assert kept.put("kept", "1990-05-17").status == 204
            before = files(worker)
            idle = [stack.enter_context(service.wire()) for _ in range(5)]
            eventually(lambda: files(worker) >= before + 5)
            assert kept.get("kept").status == 200
            exhaust_files(worker)
            # Idle ones give way to who comes.
            for _ in range(10):
                with service.client(timeout=10) as newcomer:
                    assert newcomer.request("GET", "/health/live").status == 200
                assert kept.get("kept").status == 200
            assert any(select.select([wire.socket], [], [], 0)[0] for wire in idle)
        assert service.workers == [worker]
        assert "Traceback" not in service.log


def test_files_used_up_while_draining() -> None:
    """The request in flight is answered."""
    with Service().wait_until() as service, ExitStack() as stack:
        (worker,) = service.workers
        wire = stack.enter_context(service.wire())
        wire.send(head("PUT /hello/flying", "Content-Length: 29") + BIRTHDAY[:10])
        with service.client() as client:
            assert client.request("GET", "/health/live").status == 200
            service.terminate()
            eventually(lambda: client.request("GET", "/health/ready").status == 503)
            exhaust_files(worker)
            late = []
            for _ in range(20):
                with suppress(OSError):
                    late.append(stack.enter_context(service.wire()))
            eventually(lambda: not accepts(service))
            wire.send(BIRTHDAY[10:])
            assert wire.answer("PUT").status == 204
        assert service.process.wait(20) == 0
        assert "Traceback" not in service.log


def accepts(service: Service) -> bool:
    try:
        with service.connect(timeout=1):
            return True
    except OSError:
        return False


def test_limit_of_files_is_raised_as_far_as_needed() -> None:
    lowered = ["sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh", *SERVE]
    with Service(lowered).wait_until() as service, ExitStack() as stack:
        wires = [stack.enter_context(service.wire()) for _ in range(400)]
        for wire in wires:
            wire.send(head("GET /"))
        assert [wire.answer().status for wire in wires] == [200] * 400
