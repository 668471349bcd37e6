"""Clients that send slowly, stop half-way or never read, beside one that does not."""

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import cycle, islice
from pathlib import Path

import pytest

from tests.support.processes import eventually
from tests.support.service import Client, Service, Wire, head

BIRTHDAY = b'{"dateOfBirth": "1990-05-17"}'

#: Parts that a slow client would send in all: for longer than any test lasts.
PARTS = 4000


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service(HEAD_TIMEOUT="0.5", BODY_TIMEOUT="0.5").wait_until() as service:
        yield service


@pytest.fixture
def wire(service: Service) -> Iterator[Wire]:
    with service.wire() as wire:
        yield wire


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with service.client() as client:
        yield client


def trickle(wire: Wire, part: bytes) -> bool:
    """Send `part` every 20 ms; true if the server spoke or closed before the end."""
    for _ in range(PARTS):
        if select.select([wire.socket], [], [], 0.02)[0]:
            return True
        try:
            wire.send(part)
        except ConnectionError:
            return True
    return False


def test_stalled_body_is_408_and_others_are_served(wire: Wire, client: Client) -> None:
    wire.send(head("PUT /hello/stalled", "Content-Length: 29") + BIRTHDAY[:10])
    served = 0
    while not select.select([wire.socket], [], [], 0)[0]:
        assert client.put("quick", "1990-05-17").status == 204
        assert client.get("quick").status == 200
        served += 1
    assert served
    answer = wire.answer("PUT")
    assert (answer.status, answer.headers["Connection"]) == (408, "close")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["type"] == "/docs#problem-body-timeout"
    assert wire.closed()
    assert client.get("stalled").status == 404


@pytest.mark.parametrize(
    ("framing", "part"),
    [(f"Content-Length: {PARTS}", b" "), ("Transfer-Encoding: chunked", b"1\r\n \r\n")],
)
def test_deadline_of_the_body_is_for_all_of_it(wire: Wire, framing: str, part: bytes) -> None:
    # Each part comes well within BODY_TIMEOUT.
    wire.send(head("PUT /hello/trickling", framing))
    assert trickle(wire, part)
    assert wire.answer("PUT").status == 408
    assert wire.closed()


def test_408_is_read_by_a_client_that_goes_on_sending(wire: Wire) -> None:
    wire.send(head("PUT /hello/late", "Content-Length: 29") + BIRTHDAY[:10])
    select.select([wire.socket], [], [], 15)
    # The rest comes, and must not be taken for a request.
    wire.send(BIRTHDAY[10:] + head("GET /"))
    assert wire.answer("PUT").status == 408
    assert wire.closed()


def test_unread_body_that_comes_later_than_its_answer(wire: Wire, client: Client) -> None:
    """The answer said that the connection is kept, though the time for the body was up."""
    wire.send(head("PUT /nowhere", "Content-Length: 29") + BIRTHDAY[:10])
    answer = wire.answer("PUT")
    assert (answer.status, answer.headers["Connection"]) == (404, "keep-alive")
    for _ in range(20):
        client.request("GET", "/health/live")  # time passes for the server
    wire.send(BIRTHDAY[10:] + head("GET /health/live"))
    assert wire.answer().status == 200


def test_deadlines_are_for_one_request(wire: Wire, client: Client) -> None:
    for _ in range(2):
        for part in (head("PUT /hello/prompt", "Content-Length: 29"), BIRTHDAY[:9], BIRTHDAY[9:]):
            wire.send(part)
            client.request("GET", "/health/live")  # the part is read meanwhile
        assert wire.answer("PUT").status == 204
        # Longer than both deadlines: a connection may be idle.
        assert not select.select([wire.socket], [], [], 0.7)[0]


@pytest.mark.parametrize("first", [b"", head("GET /")], ids=["first", "next"])
def test_stalled_head_ends_the_connection(wire: Wire, client: Client, first: bytes) -> None:
    if first:
        wire.send(first)
        assert wire.answer().status == 200
    wire.send(b"GET / HTTP/1.1\r\nHost:")
    while not select.select([wire.socket], [], [], 0)[0]:
        assert client.get("nobody").status == 404
    assert wire.closed()


def test_deadline_of_the_head_is_for_all_of_it(wire: Wire) -> None:
    wire.send(b"GET / HTTP/1.1\r\n")
    assert trickle(wire, b"A: b\r\n")
    assert wire.closed()


#: What a client may send as fast as it can, and where that belongs.
FLOODS = {
    "head": (b"GET / HTTP/1.1\r\nHost: hello\r\n", b"A: b\r\n"),
    "line": (b"GET /", b"a"),
    "chunk": (head("PUT /hello/flood", "Transfer-Encoding: chunked") + b"1;", b"a"),
    "chunks": (head("PUT /hello/flood", "Transfer-Encoding: chunked"), b"1\r\n \r\n"),
    "trailers": (head("PUT /hello/flood", "Transfer-Encoding: chunked") + b"0\r\n", b"A: b\r\n"),
    "body": (head("PUT /hello/flood", "Content-Length: 100000"), b" "),
    "unread body": (head("PUT /flood", "Content-Length: 1000000000"), b" "),
    "after a refusal": (head("GET /", "Content-Length: -1"), b" "),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_fast_sender_stops_nobody_and_is_ended(service: Service, client: Client, kind: str) -> None:
    """The time for a head and for a body is up however fast they come."""
    begin, part = FLOODS[kind]

    def flood(piece: int) -> None:
        with service.wire(30) as wire, suppress(OSError):
            wire.send(begin)
            wire.send(part * (piece // len(part)))
            while True:
                for byte in part:
                    wire.send(bytes([byte]))

    # One goes on byte by byte at once, the other after as much as fits into buffers.
    senders = [threading.Thread(target=flood, args=(n,), daemon=True) for n in (1, 700_000)]
    for sender in senders:
        sender.start()
    end = time.monotonic() + 60
    while any(sender.is_alive() for sender in senders):
        assert time.monotonic() < end
        # Far less than the 30 s after which a worker that stands still is killed.
        with service.client(timeout=5) as newcomer:
            assert newcomer.request("GET", "/health/live").status == 200
        assert client.get("nobody").status == 404


def test_half_closed_client_gets_its_answers(wire: Wire) -> None:
    wire.send(head("PUT /hello/half", "Content-Length: 29") + BIRTHDAY + head("GET /hello/half"))
    wire.end()
    assert wire.answer("PUT").status == 204
    assert wire.answer().status == 200
    assert wire.closed()


@pytest.mark.parametrize(
    ("framing", "part"),
    [
        ("Content-Length: 30", BIRTHDAY),
        ("Transfer-Encoding: chunked", b"1d\r\n" + BIRTHDAY + b"\r\n"),
    ],
)
def test_body_that_ends_too_early_stores_nothing(
    wire: Wire, client: Client, framing: str, part: bytes
) -> None:
    # All that matters of the body is there, but nobody has said that it is all.
    wire.send(head("PUT /hello/cut", framing) + part)
    wire.end()
    assert wire.answer("PUT").status == 400
    assert wire.closed()
    assert client.get("cut").status == 404


@pytest.mark.parametrize(
    "part", [b"", b"GET /", head("PUT /hello/gone", "Content-Length: 29") + BIRTHDAY[:10]]
)
def test_reset_connection_is_no_event(service: Service, client: Client, part: bytes) -> None:
    before = service.log
    with service.wire() as wire:
        wire.send(part)
        client.request("GET", "/health/live")  # the part is read meanwhile
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert client.get("gone").status == 404
    assert service.log == before


def test_client_that_never_reads_is_dropped(service: Service, client: Client) -> None:
    """Or it would keep its place among the worker's connections for ever."""
    requests = head("GET /hello/nobody") * 1000
    rest = b""
    with socket.socket() as sock:
        # A small buffer is full soon; then the worker cannot send, and reads no more.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", service.port))
        sock.setblocking(False)
        poll = select.poll()
        poll.register(sock, 0)

        def dropped() -> bool:
            nonlocal rest
            assert client.get("nobody").status == 404
            rest = rest or requests
            with suppress(BlockingIOError, ConnectionError):
                rest = rest[sock.send(rest) :]
            return bool(poll.poll(0))

        eventually(dropped, within=20)


def test_300_useless_connections(service: Service, client: Client) -> None:
    (worker,) = service.workers
    descriptors = Path(f"/proc/{worker}/fd")
    client.put("served", "1990-05-17")
    before = len(list(descriptors.iterdir()))
    parts = [b"", b"GET /hello", head("PUT /hello/open", "Content-Length: 29") + BIRTHDAY[:10]]
    with ExitStack() as stack:
        for part in islice(cycle(parts), 300):
            wire = stack.enter_context(service.wire())
            wire.send(part)
            assert client.get("served").status == 200
        with service.client() as newcomer:
            assert newcomer.put("served", "1990-05-18").status == 204
            assert newcomer.get("served").status == 200
        # Those that began a request are gone when its time is up.
        eventually(lambda: len(list(descriptors.iterdir())) <= before + 100)
    eventually(lambda: len(list(descriptors.iterdir())) <= before)
