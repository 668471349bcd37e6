"""One connection by itself: whose bytes it reads and sends, and what ends its waits."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from gunicorn.config import Config
from gunicorn.http import errors

from hello.server.connection import MAX_HELD, WAIT_WHILE_ENDING, Connection, Context
from hello.server.parser import HeadParser
from hello.server.room import Room
from hello.telemetry.logs import Logger
from tests.support.requests import HOST, request

PEER, SERVER = ("127.0.0.1", 50000), ("127.0.0.1", 8080)
GET = request(HOST)
CHUNKED = request(
    HOST,
    b"Transfer-Encoding: chunked",
    line=b"PUT /chunked HTTP/1.1",
    body=b"5\r\nhello\r\n0\r\n\r\n",
)


class Ledger(Room[Connection]):
    """A room that shows how many bytes are held."""

    held = 0

    def hold(self, size: int) -> bool:
        self.held += size
        return super().hold(size)


class Worker:
    """Notes what a connection asks of its worker."""

    def __init__(self) -> None:
        self.is_ending = False
        self.counted = 0
        self.unusual: list[tuple[str, bytes]] = []
        self.refused: list[type[Exception]] = []
        self.room = Ledger(100, lambda message: None)
        #: Lets the application answer.
        self.go_on = Event()
        self.go_on.set()

    def context(self) -> Context:
        return Context(
            app=self.app,
            cfg=Config(),
            log=cast(Logger, SimpleNamespace(access_log_enabled=False)),
            room=self.room,
            head_timeout=10.0,
            body_timeout=20.0,
            keepalive=30.0,
            is_ending=lambda: self.is_ending,
            count_request=self.count_request,
            handle_request=self.handle_request,
            refuse=self.refuse,
            head_parser=lambda client, peer, server: HeadParser(
                Config(), client, peer, server, trusted=False
            ),
        )

    def app(self, environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        self.go_on.wait()
        start("200 OK", [])
        return [environ["PATH_INFO"].encode(), environ["wsgi.input"].read()]

    def count_request(self) -> None:
        self.counted += 1

    def handle_request(self, server: Any, request: Any, client: Any, peer: Any) -> None:
        self.unusual.append((request.path, request.body.read()))

    def refuse(self, peer: Any, ex: Exception) -> bytes:
        self.refused.append(type(ex))
        return b"refused"


class Served:
    """A connection that is being served, and its client's end."""

    def __init__(self, context: Context) -> None:
        theirs, self.client = socket.socketpair()
        self.client.settimeout(5)
        self.greenlet = gevent.spawn(self._serve, context, theirs)
        gevent.sleep(0)

    def _serve(self, context: Context, client: Any) -> None:
        self.connection = Connection(context, client, PEER, SERVER)
        self.connection.serve()

    def send(self, data: bytes) -> None:
        self.client.sendall(data)
        gevent.sleep(0.01)

    def answer(self) -> tuple[bytes, bytes]:
        """Head and body of the next answer."""
        head, _, body = self.client.recv(1 << 16).partition(b"\r\n\r\n")
        return head, body

    def closed(self) -> bool:
        """Whether the connection ends soon, with nothing more to read."""
        self.greenlet.join(timeout=5)
        return self.greenlet.successful() and self.client.recv(1) == b""

    def waits(self) -> bool:
        gevent.sleep(0.01)
        return not self.greenlet.dead and self.connection.waits_for_client


Serve = Callable[[Context], Served]


def in_hub(call: Callable[[], None]) -> None:
    """Call as the worker and the room do."""
    gevent.get_hub().loop.run_callback(call)
    gevent.sleep(0.01)


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves connections of contexts until the test ends."""
    with ExitStack() as stack:

        def serve(context: Context) -> Served:
            served = Served(context)
            stack.callback(served.client.close)
            stack.callback(served.greenlet.kill)
            return served

        yield serve


@pytest.fixture
def served(serve: Serve, worker: Worker) -> Served:
    return serve(worker.context())


def test_plain_requests_are_answered_and_the_connection_is_kept(
    worker: Worker, served: Served
) -> None:
    for _ in range(2):
        served.send(GET)
        head, body = served.answer()
        assert body == b"/hello/alice"
        assert b"\r\nConnection: keep-alive\r\n" in head
    assert served.waits()
    assert worker.counted == 2
    assert worker.unusual == []


def test_request_may_come_in_pieces(worker: Worker, served: Served) -> None:
    data = request(HOST, b"Content-Length: 2", line=b"PUT /a HTTP/1.1", body=b"{}")
    for start in range(0, len(data), 10):
        served.send(data[start : start + 10])
    assert served.answer()[1] == b"/a{}"
    assert worker.unusual == []


def test_unusual_request_is_left_to_gunicorn_with_every_byte_of_it(
    worker: Worker, served: Served
) -> None:
    served.send(CHUNKED + GET)
    assert served.answer()[1] == b"/hello/alice"
    assert worker.unusual == [("/chunked", b"hello")]
    assert worker.counted == 1  # gunicorn's path counts its own


def test_what_is_no_http_is_refused_and_the_connection_closed(
    worker: Worker, served: Served
) -> None:
    served.send(b"GET /\n\n")
    assert served.client.recv(100) == b"refused"
    served.client.shutdown(socket.SHUT_WR)
    assert served.closed()
    assert worker.refused == [errors.InvalidRequestLine]


def test_each_wait_has_a_deadline_of_its_own(served: Served) -> None:
    def seconds() -> float:
        assert served.waits()
        return served.connection.deadline - time.monotonic()

    assert seconds() == pytest.approx(10, abs=4)  # for the first request
    served.send(GET)
    served.answer()
    assert seconds() == pytest.approx(30, abs=4)  # for the next one
    served.send(GET[:-2])
    assert seconds() == pytest.approx(10, abs=4)  # for the rest of a head
    served.send(GET[-2:])
    served.answer()
    served.send(request(HOST, b"Content-Length: 2", line=b"PUT /a HTTP/1.1"))
    assert seconds() == pytest.approx(20, abs=4)  # for a body


def test_wait_ends_after_its_deadline_and_not_before(served: Served) -> None:
    in_hub(served.connection.expire)
    assert served.waits()
    served.connection.deadline = 0.0
    in_hub(served.connection.expire)
    assert served.closed()


def test_drain_ends_an_idle_wait(served: Served) -> None:
    in_hub(served.connection.drain)
    assert served.closed()


def test_drain_lets_a_request_that_has_begun_be_answered(worker: Worker, served: Served) -> None:
    served.send(GET[:20])
    worker.is_ending = True
    in_hub(served.connection.drain)
    assert served.waits()
    served.send(GET[20:])
    assert b"\r\nConnection: close\r\n" in served.answer()[0]
    assert served.closed()


def test_worker_that_ends_waits_a_moment_for_a_new_client(worker: Worker, serve: Serve) -> None:
    worker.is_ending = True
    served = serve(worker.context())
    assert served.connection.deadline - time.monotonic() <= WAIT_WHILE_ENDING
    served.send(GET)
    assert b"\r\nConnection: close\r\n" in served.answer()[0]
    assert served.closed()


def test_connection_gives_way_while_it_waits_for_its_client(served: Served) -> None:
    served.send(GET[:20])
    in_hub(served.connection.give_way)
    assert served.closed()


def test_connection_gives_way_while_its_client_does_not_read(worker: Worker, serve: Serve) -> None:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        start("200 OK", [])
        return [bytes(1 << 22)]

    served = serve(replace(worker.context(), app=app))
    served.send(GET)
    assert served.waits()
    assert worker.room.held > 0
    in_hub(served.connection.give_way)
    assert served.greenlet.successful()
    assert worker.room.held == 0


def test_connection_does_not_give_way_while_its_request_is_worked_on(
    worker: Worker, served: Served
) -> None:
    worker.go_on.clear()
    served.send(GET)
    assert not served.connection.waits_for_client
    in_hub(served.connection.give_way)
    in_hub(served.connection.expire)
    in_hub(served.connection.drain)
    worker.go_on.set()
    assert served.answer()[1] == b"/hello/alice"


def test_bytes_of_a_request_are_held_until_it_is_answered(worker: Worker, served: Served) -> None:
    served.send(GET[:20])
    assert worker.room.held == served.connection.held == 20
    served.send(GET[20:])
    served.answer()
    assert served.waits()
    assert worker.room.held == served.connection.held == 0


def test_bytes_of_a_request_are_released_when_the_connection_ends(
    worker: Worker, served: Served
) -> None:
    served.send(GET[:20])
    served.client.shutdown(socket.SHUT_WR)
    assert served.closed()
    assert worker.room.held == 0


def test_one_connection_holds_so_many_bytes_and_no_more(worker: Worker, serve: Serve) -> None:
    def read_all(server: Any, request: Any, client: Any, peer: Any) -> None:
        request.body.read()

    served = serve(replace(worker.context(), handle_request=read_all))
    length = b"Content-Length: %d" % (2 * MAX_HELD)
    served.send(request(HOST, length, line=b"PUT /a HTTP/1.1"))
    sent = 0
    with suppress(BrokenPipeError, ConnectionResetError):
        while sent < 2 * MAX_HELD:
            served.send(bytes(8192))
            sent += 8192
    assert MAX_HELD * 0.9 < sent < MAX_HELD * 1.1
    assert served.greenlet.successful()
    assert worker.room.held == 0
