"""What the application answers to a plain request → the bytes to send, all in one piece.

The application is called when the body is there, and its answer leaves when it is complete,
so this is no way for an application that streams. gunicorn's hooks for requests are not
called, and there is no `wsgi.early_hints`.
"""

import io
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from gunicorn import SERVER, util
from gunicorn.http.message import TOKEN_RE
from gunicorn.http.wsgi import HEADER_VALUE_RE, STATUS_RE


class Answer:
    """The answer to one request: WSGI's start_response, and then the bytes to send.

    `close` says whether the connection ends with it; `sent` is the length of the body in bytes.
    """

    def __init__(self, method: str) -> None:
        self.close = False
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.sent = 0
        self._head_only = method == "HEAD"
        self._written: list[bytes] = []

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """`start_response` of PEP 3333. Nothing is sent yet, so it may be called again."""
        if self.status and not exc_info:
            raise AssertionError("the response was started already")
        self.status = status
        self.headers = headers
        return self._written.append

    def encode(self, parts: Iterable[bytes]) -> bytes:
        """Head and body, in one piece.

        Raises ValueError, TypeError or AttributeError for a status or header that would make no
        valid head, or another one than the application means.
        """
        body = b"".join([*self._written, *parts])
        framing = _framing(self.status)
        lines = [""]
        length: int | None = None
        for name, value in self.headers:
            role = _role(name)
            # Most values are printable, and that is quickly seen.
            if not (value.isprintable() or HEADER_VALUE_RE.fullmatch(value)):
                raise ValueError(f"invalid character in the value of the header {name}")
            value = value.strip(" \t")
            if role is _FIELD:
                lines.append(f"{name}: {value}\r\n")
            elif role is _LENGTH:
                if length is not None or not (value.isascii() and value.isdigit()):
                    raise ValueError("invalid or repeated Content-Length")
                length = int(value)
            elif value.lower() == "close":
                self.close = True
        if framing is not _BARE:
            if length is None and framing is _WHOLE and not self._head_only:
                length = len(body)
            if length is not None:
                lines.append(f"content-length: {length}\r\n")
        if self._head_only or framing is not _WHOLE:
            body = b""
        elif len(body) != length:
            body = body[:length]
            # A client of a shorter body would take the next answer for the rest of it.
            self.close = self.close or len(body) != length
        connection = "close" if self.close else "keep-alive"
        lines[0] = (
            f"HTTP/1.1 {self.status}\r\nServer: {SERVER}\r\n"
            f"Date: {http_date()}\r\nConnection: {connection}\r\n"
        )
        lines.append("\r\n")
        self.sent = len(body)
        return "".join(lines).encode("latin-1") + body


# How an answer is framed: with a length and a body, with a length that stands for the body
# that there would be, or with neither (RFC 9110, section 8.6).
_WHOLE, _LENGTH_ALONE, _BARE = "whole", "length alone", "bare"


@lru_cache(maxsize=1024)
def _framing(status: str) -> str:
    """How an answer with this status is framed. Raises ValueError if it is no status."""
    if not status:
        raise ValueError("the application has not started its response")
    if not STATUS_RE.fullmatch(status):
        raise ValueError("invalid status")
    if status.startswith("304"):
        return _LENGTH_ALONE
    return _BARE if status.startswith(("1", "204")) else _WHOLE


# What a header of the application is to the server: a field to send on, the length of the
# body, or one that speaks of the connection, which is the server's to send.
_FIELD, _LENGTH, _CONNECTION = "field", "length", "connection"


@lru_cache(maxsize=1024)
def _role(name: str) -> str:
    """What a header with this name is to the server. Raises ValueError if it is no name."""
    if not TOKEN_RE.fullmatch(name):
        raise ValueError("invalid character in the name of a header")
    if name.lower() == "content-length":
        return _LENGTH
    return _CONNECTION if util.is_hoppish(name) else _FIELD


_date = (0, "")


def http_date() -> str:
    """The time as HTTP writes it, made once a second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, formatdate(now, usegmt=True))
    return _date[1]


def run(
    app: Any, environ: dict[str, Any], body: bytes, closes: Callable[[], bool]
) -> tuple[bytes, Answer]:
    """Let the application answer; return what to send.

    `closes` says whether the connection is to end with the answer. It is asked when the
    application is done, since the worker may have begun to stop meanwhile.
    """
    environ["wsgi.input"] = io.BytesIO(body)
    answer = Answer(environ["REQUEST_METHOD"])
    parts = app(environ, answer.start)
    try:
        answer.close = closes()
        return answer.encode(parts), answer
    finally:
        if hasattr(parts, "close"):
            parts.close()
