"""The service beside a handler that answers a constant, in one process: what each costs.

`python -m tests.support.cost` counts the bytecode instructions of a request.
"""

import json
import re
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import falcon

from tests.support.service import Service, head

#: Connections that ask at once.
CONNECTIONS = 16

_ROOT = Path(__file__).parents[2]
_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)", re.IGNORECASE)


class _Constant:
    """A route, a responder and a body to read, as the service has; nothing to look up."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, username: str) -> None:
        resp.data = b'{"message": "Hello, world! Happy birthday!"}'

    def on_put(self, req: falcon.Request, resp: falcon.Response, username: str) -> None:
        req.bounded_stream.read()
        resp.status = falcon.HTTP_204


def application() -> Any:
    """A WSGI application: `/constant/…`, `/cpu`, and everything else the service's."""
    from hello.app import wsgi

    service = wsgi()
    constant = falcon.App()
    constant.add_route("/constant/{username}", _Constant())

    def dispatch(environ: dict, start: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith("/constant/"):
            return constant(environ, start)
        if path == "/cpu":
            body = str(time.process_time_ns()).encode()
            start("200 OK", [("Content-Length", str(len(body)))])
            return [body]
        return service(environ, start)

    return dispatch


def serve(worker: str = "hello.server.worker.Worker") -> Service:
    """gunicorn with the application above, and its settings, or "gevent" with its own."""
    command = [sys.executable, "-m", "gunicorn", "-c", "python:hello.server"]
    if worker == "gevent":
        command = [*command[:-2], "--keep-alive", "75"]
    return Service(
        [
            *(*command, "--worker-class", worker, "--pythonpath", str(_ROOT)),
            "tests.support.cost:application()",
        ]
    )


def get(path: str) -> bytes:
    return head(f"GET {path}", "User-Agent: curl/8.14.1", "Accept: */*")


def put(path: str, number: int = 0) -> bytes:
    body = b'{"dateOfBirth": "19%02d-05-17"}' % (number % 100)
    fields = ("User-Agent: curl/8.14.1", "Accept: */*", f"Content-Length: {len(body)}")
    return head(f"PUT {path}", *fields, "Content-Type: application/x-www-form-urlencoded") + body


class Meter:
    """Asks a service on connections that are kept, and reads its CPU time."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._sockets = [service.connect() for _ in range(CONNECTIONS)]
        for sock in self._sockets:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def cpu(self, requests: Sequence[bytes]) -> float:
        """The CPU time that one of `requests` costs, in µs."""
        before = self._clock()
        for start in range(0, len(requests), CONNECTIONS):
            some = requests[start : start + CONNECTIONS]
            for sock, request in zip(self._sockets, some, strict=False):
                sock.sendall(request)
            # The last first: to be woken for every answer would cost the server time.
            for sock in reversed(self._sockets[: len(some)]):
                answer = _receive(sock)
                assert answer.startswith(b"HTTP/1.1 20"), answer
        return (self._clock() - before) / len(requests) / 1000

    def _clock(self) -> int:
        self._sockets[0].sendall(get("/cpu"))
        return int(_receive(self._sockets[0]).rpartition(b"\r\n")[2])

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _receive(sock: socket.socket) -> bytes:
    """One answer; gunicorn's own worker sends head and body apart."""
    data = b""
    while True:
        part = sock.recv(4096)
        assert part, "the server has closed"
        data += part
        head, end, body = data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and len(body) == int(length[1] if length else 0):
            return data


def count(call: Callable[[], object]) -> int:
    """How many bytecode instructions of Python a call executes, always the same."""
    executed = 0

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal executed
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        executed += event == "opcode"
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return executed


def count_requests() -> dict[str, dict[str, int]]:
    """The instructions of each method's request, by path: parsing, answering, encoding."""
    from gunicorn.config import Config

    from hello.server import parser, response

    peer, server = ("127.0.0.1", 50000), ("127.0.0.1", 8080)
    heads = parser.HeadParser(Config(), None, peer, server, trusted=False)
    app = application()
    counts: dict[str, dict[str, int]] = {"PUT": {}, "GET": {}}

    def answer(data: bytes) -> None:
        head, end, body = data.partition(b"\r\n\r\n")
        environ = heads.parse(head + end)
        assert environ is not None
        _, told = response.run(app, environ, body, lambda: False)
        assert told.status.startswith("20")

    for path in ("/hello/alice", "/constant/alice"):
        # Caches fill, and the interpreter gets ready to trace.
        for number in range(3):
            count(partial(answer, put(path, number)))
            count(partial(answer, get(path)))
        counts["PUT"][path] = count(partial(answer, put(path, 9)))
        counts["GET"][path] = count(partial(answer, get(path)))
    return counts


if __name__ == "__main__":
    print(json.dumps(count_requests()))
