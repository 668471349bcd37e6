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
- A request of HTTP/1.1 has a Host, or is refused.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from gunicorn.http import errors, message, parser, unreader, wsgi
from gunicorn.http.body import LengthReader

from hello.lifecycle import process

#: How much of a body that the application did not read is read and dropped to keep a connection:
#: bytes, seconds. A connection with a longer one, or one of unknown length, ends with the answer.
DROP_BYTES, DROP_SECONDS = 64 * 1024, 5.0
#: The longest head, and the longest trailers of chunks, that are read, in bytes.
MAX_HEAD = 64 * 1024

_NOT_ASCII = re.compile(rb"[\x80-\xff]")


class Client(Protocol):
    """Who sends and is sent bytes: see `hello.server.connection.Connection`."""

    def receive(self, deadline: float) -> bytes: ...

    def send(self, data: bytes) -> None: ...


class Unreader(unreader.Unreader):  # type: ignore[misc]
    """What a client sends until `deadline` (time.monotonic()); then it raises TimeoutError."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client
        self.deadline = float("inf")
        #: Whether the client has sent all.
        self.ended = False

    def chunk(self, _size_hint: int | None = None) -> bytes:
        data = self.client.receive(self.deadline)
        self.ended = not data
        return data


class MissingHost(errors.InvalidHeader):  # type: ignore[misc]
    """A request of HTTP/1.1 without Host (RFC 9112, section 3.2)."""


class Request(message.Request):  # type: ignore[misc]
    """A request whose target may hold raw UTF-8.

    RFC 9112 wants it percent-encoded; curl sends what was typed.
    """

    max_buffer_headers: int

    def parse(self, unreader: Unreader) -> bytes:
        # gunicorn's own bound is 800 KB, and it scans all of a head for each piece that comes.
        self.max_buffer_headers = min(self.max_buffer_headers, MAX_HEAD)
        rest: bytes = super().parse(unreader)
        if self.version >= (1, 1) and not any(name == "HOST" for name, _ in self.headers):
            raise MissingHost("HOST", req=self)
        *others, last = ["", *self._transfer_codings()]
        if last == "chunked" and not {"", "chunked", "identity"}.issuperset(others):
            # gunicorn would take what is compressed for the body.
            raise errors.UnsupportedTransferCoding("no coding but chunked")
        return rest

    def _transfer_codings(self) -> Iterator[str]:
        for name, value in self.headers:
            if name == "TRANSFER-ENCODING":
                yield from (coding.strip(" \t").lower() for coding in value.split(","))

    def parse_request_line(self, line_bytes: bytes) -> None:
        if not line_bytes.isascii():
            method, space, rest = line_bytes.partition(b" ")
            target, last, version = rest.rpartition(b" ")
            target = _NOT_ASCII.sub(lambda match: b"%%%02X" % match[0][0], target)
            line_bytes = method + space + target + last + version
        super().parse_request_line(line_bytes)


class RequestParser(parser.RequestParser):  # type: ignore[misc]
    """The requests of one connection, one after the other."""

    mesg_class = Request

    def __init__(self, cfg: Any, client: Client, peer: Any) -> None:
        super().__init__(cfg, (), peer)
        self.unreader = Unreader(client)


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
            raise ValueError("invalid or repeated Content-Length")
        if ("connection", "close") in [(name.lower(), value.lower()) for name, value in headers]:
            self.force_close()
        if unread(self.req.body) > DROP_BYTES:
            self.force_close()

    def should_close(self) -> bool:
        # Asked when the head is made: the worker may have begun to drain since the request.
        ended = self.req.unreader.ended
        return process.draining or ended or bool(super().should_close())

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
        self.req.unreader.client.send(head + data)

    def close(self) -> None:
        self.send_headers()
        end = self._head + (b"0\r\n\r\n" if self.chunked else b"")
        self._head = b""
        if end:
            self.req.unreader.client.send(end)
        if not self._omits_body and self.sent < (self.response_length or 0):
            self.force_close()


def unread(body: Any) -> float:
    """How many bytes of a gunicorn body are still to come; infinity if nobody knows."""
    if body.failed:
        return float("inf")
    reader = body.reader
    if isinstance(reader, LengthReader):
        return int(reader.length)
    return 0 if reader.parser is None else float("inf")
