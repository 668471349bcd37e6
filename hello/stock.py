"""One request on gunicorn's own path, with deadlines for slow clients.

What differs from `gunicorn.workers.base_async`:

- The head and the body of a request each have a deadline. gunicorn has one for idle time
  and head together, and none for the body.
- Head and body of an answer leave in one send.
- An application's `Connection: close` is obeyed. gunicorn ignores it.
- A response that is started again forgets the first start, and one whose body is shorter
  than its length ends the connection. gunicorn sends both heads in one, and the next
  answer for the rest of the body.
- An answer says that the connection ends if the body was not read and is long or broken.
- The target of a request may hold raw UTF-8. gunicorn answers 400.
"""

import re
import time
from collections.abc import Callable
from typing import Any

import gevent
from gunicorn import util
from gunicorn.http import message, parser, wsgi
from gunicorn.http.body import LengthReader

from hello.lifecycle import process

#: How much of an unread body is read and dropped to keep a connection: bytes, seconds.
#: A connection with a longer one, or one of unknown length, ends with the answer.
DROP_BYTES, DROP_SECONDS = 64 * 1024, 5.0

_NOT_ASCII = re.compile(rb"[\x80-\xff]")


class Request(message.Request):  # type: ignore[misc]
    """A request whose target may hold raw UTF-8.

    RFC 9112 wants it percent-encoded; curl sends what was typed.
    """

    def parse_request_line(self, line_bytes: bytes) -> None:
        if not line_bytes.isascii():
            line_bytes = _NOT_ASCII.sub(lambda match: b"%%%02X" % match[0][0], line_bytes)
        super().parse_request_line(line_bytes)


class RequestParser(parser.RequestParser):  # type: ignore[misc]
    mesg_class = Request


class Response(wsgi.Response):  # type: ignore[misc]
    """A response that sends its head together with the first part of its body."""

    _head = b""
    headers_sent: bool
    headers: list[tuple[str, str]]
    response_length: int | None

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info and not self.headers_sent:
            self.headers, self.response_length = [], None
        write: Callable[[bytes], None] = super().start_response(status, headers, exc_info)
        return write

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        super().process_headers(headers)
        lengths = [value for name, value in self.headers if name.lower() == "content-length"]
        if len(lengths) > 1 or not all(value.isascii() and value.isdigit() for value in lengths):
            raise ValueError("no Content-Length, or more than one")
        if ("connection", "close") in [(name.lower(), value.lower()) for name, value in headers]:
            self.force_close()
        if unread(self.req.body) > DROP_BYTES:
            self.force_close()

    def should_close(self) -> bool:
        # Asked when the head is made: the worker may have begun to drain since the request.
        return process.draining or bool(super().should_close())

    def send_headers(self) -> None:
        if self.status is None:
            raise ValueError("the application has not started its response")
        if not self.headers_sent:
            lines = [*self.default_headers(), *(f"{k}: {v}\r\n" for k, v in self.headers), "\r\n"]
            self._head = "".join(lines).encode("latin-1")
            self.headers_sent = True

    def can_sendfile(self) -> bool:
        return False  # it would bypass the head that is held back

    def _emit_body(self, data: bytes) -> None:
        if self.chunked:
            data = b"%X\r\n%s\r\n" % (len(data), data)
        head, self._head = self._head, b""
        util.write(self.sock, head + data)

    def close(self) -> None:
        self.send_headers()
        end = self._head + (b"0\r\n\r\n" if self.chunked else b"")
        self._head = b""
        if end:
            util.write(self.sock, end)
        if not self._omits_body and self.sent < (self.response_length or 0):
            self.force_close()


class TimedBody:
    """A request body (`wsgi.input`) that raises TimeoutError once `deadline` has passed."""

    def __init__(self, body: Any, deadline: float) -> None:
        self._body = body
        self._deadline = deadline

    def _timeout(self) -> gevent.Timeout:
        # A timeout of 0 would switch it off.
        return gevent.Timeout(max(0.001, self._deadline - time.monotonic()), TimeoutError)

    def read(self, size: int | None = None) -> bytes:
        with self._timeout():
            data: bytes = self._body.read(size)
            return data

    def readline(self, size: int | None = None) -> bytes:
        with self._timeout():
            data: bytes = self._body.readline(size)
            return data

    def readlines(self, size: int | None = None) -> list[bytes]:
        with self._timeout():
            lines: list[bytes] = self._body.readlines(size)
            return lines

    def __iter__(self) -> "TimedBody":
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    @property
    def untimed(self) -> Any:
        """The body without its deadline, for a reader that has one of its own."""
        return self._body

    @property
    def failed(self) -> bool:
        """Whether the end of the body was not found."""
        return bool(self._body.failed)

    @property
    def reader(self) -> Any:
        return self._body.reader


def unread(body: Any) -> float:
    """How many bytes of a gunicorn body are still to come; infinity if nobody knows."""
    if body.failed:
        return float("inf")
    reader = body.reader
    if isinstance(reader, LengthReader):
        return int(reader.length)
    return 0 if reader.parser is None else float("inf")


def time_body(request: Any, deadline: float) -> None:
    """Give the body of a gunicorn request, if it has one, a deadline (time.monotonic())."""
    reader = request.body.reader
    if not (isinstance(reader, LengthReader) and reader.length == 0):
        request.body = TimedBody(request.body, deadline)
