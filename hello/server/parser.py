"""The short way of a plain request: parsed in C, answered with one send.

Plain is what ordinary clients send all day: HTTP/1.1 on a connection that is kept, a head
of modest size with each field once, a body of known length. Everything else is left, with
every byte of it, to gunicorn's own path (`hello.server.fallback`), which costs five times as much
and knows all of HTTP. So this module refuses nothing; it only recognises.

llhttp parses, the parser of Node.js, through `httptools`. It is lenient in places where
gunicorn is not; `_is_odd` and `Template.environ` close them.
tests/system/server/test_both_paths.py sends the same bytes down both ways and compares.

The application is called when the body is there, and its answer leaves when it is complete,
so this is no way for one that streams.
gunicorn's hooks for requests are not called, and there is no `wsgi.early_hints`.
"""

import io
import re
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import Any

import httptools
from gunicorn import SERVER, util
from gunicorn.http.message import TOKEN_RE
from gunicorn.http.wsgi import HEADER_VALUE_RE, STATUS_RE, base_environ

#: The longest head that is plain, in bytes. gunicorn's limits, if smaller, win.
MAX_HEAD = 4096
#: The longest body that is plain, in bytes. A longer one is read as it comes.
MAX_BODY = 65536

#: Names of header fields, in bytes as they came, with their keys in the environment, or
#: "" for a field that makes a request unusual. Filled as they are seen.
_keys: dict[bytes, str] = {}
_MAX_KEYS = 1024

_UNUSUAL = frozenset(("HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "HTTP_UPGRADE", "HTTP_TE"))


def _key(name: bytes) -> str:
    """The environment's key for a field name: RFC 3875, section 4.1.18."""
    text = name.decode("ascii").upper()
    key = text.replace("-", "_")
    if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = f"HTTP_{key}"
    # `X_A` and `X-A` would have the same key: gunicorn's policy for underscores decides.
    if "_" in text or key in _UNUSUAL:
        key = ""
    if len(_keys) < _MAX_KEYS:
        _keys[name] = key
    return key


#: Bytes that no two parsers disagree about.
_PRINTABLE = bytes([*range(0x20, 0x7F), 0x09])


def _is_odd(head: bytes) -> bool:
    """Whether a head has bytes that parsers disagree about (RFC 9112, section 2.2 and 5)."""
    ends = head.translate(None, _PRINTABLE)
    return (
        ends != b"\r\n" * (len(ends) // 2)
        or b"\n " in head  # a folded line
        or b"\n\t" in head
    )


class _Head:
    """What httptools calls while it parses a head."""

    __slots__ = ("fields", "url")

    def __init__(self) -> None:
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


class Template:
    """What the environments of all requests on one connection have in common.

    `trusted` says whether gunicorn would believe this peer's forwarding headers.
    """

    def __init__(self, cfg: Any, client: Any, peer: Any, server: Any, *, trusted: bool) -> None:
        self.max_head = min(cfg.limit_request_line, cfg.limit_request_field_size, MAX_HEAD)
        self._max_fields = cfg.limit_request_fields
        self._forwarding = frozenset(
            "HTTP_" + name.upper().replace("-", "_") for name in cfg.secure_scheme_headers
        )
        self._trusted = trusted
        self._environ = base_environ(cfg) | {
            "wsgi.multithread": True,
            "wsgi.url_scheme": "http",
            "gunicorn.socket": client,
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_NAME": server[0],
            "SERVER_PORT": str(server[1]),
            "REMOTE_ADDR": peer[0],
            "REMOTE_PORT": str(peer[1]),
            "SCRIPT_NAME": "",
        }
        #: The fields of the last plain request, as they came, and what they make of _environ.
        #: Clients send the same ones again and again.
        self._fields = b""
        self._environ_with_fields: dict[str, Any] = {}

    def environ(self, head: bytes) -> dict[str, Any] | None:
        """The WSGI environment (PEP 3333) of a whole head, without the body's stream.

        None if the head is not plain.
        """
        line, _, fields = head.partition(b"\r\n")
        if fields == self._fields and (match := _LINE.fullmatch(line)):
            known = self._environ_with_fields.copy()
            _add_line(known, *match.groups())
            return known
        environ = self._parse(head)
        if environ is not None:
            self._fields, self._environ_with_fields = fields, environ.copy()
        return environ

    def _parse(self, head: bytes) -> dict[str, Any] | None:
        if _is_odd(head):
            return None
        parsed = _Head()
        parser = httptools.HttpRequestParser(parsed)
        try:
            parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        method, url = parser.get_method(), parsed.url
        # llhttp skips empty lines before the first, and spaces in it.
        if not head.startswith(b"%s %s HTTP/1.1\r\n" % (method, url)):
            return None
        if len(parsed.fields) > self._max_fields:
            return None

        environ: dict[str, Any] = self._environ.copy()
        for name, value in parsed.fields:
            key = _keys.get(name)
            if key is None:
                key = _key(name)
            if not key or key in environ:
                return None
            environ[key] = value.decode("ascii").strip(" \t")
        if "HTTP_HOST" not in environ:
            return None
        if environ.get("HTTP_CONNECTION", "keep-alive").lower() != "keep-alive":
            return None
        if self._trusted and not self._forwarding.isdisjoint(environ):
            return None

        # Only the origin form, and not what looks like the beginning of another.
        if url[:1] != b"/" or url[:2] == b"//" or b"#" in url:
            return None
        _add_line(environ, method, url)
        return environ


#: A request line that needs no parser: RFC 9112, section 3.2.1, and RFC 3986, section 3.3.
_LINE = re.compile(rb"(GET|HEAD|PUT) (/(?!/)[A-Za-z0-9._~%!$&'()*+,;=:@/?-]*) HTTP/1\.1")


def _add_line(environ: dict[str, Any], method: bytes, target: bytes) -> None:
    """Add what the request line says to an environment."""
    uri = target.decode("ascii")
    path, _, query = uri.partition("?")
    environ["REQUEST_METHOD"] = method.decode("ascii")
    environ["RAW_URI"] = uri
    environ["PATH_INFO"] = util.unquote_to_wsgi_str(path) if "%" in path else path
    environ["QUERY_STRING"] = query


def body_length(environ: dict[str, Any]) -> int | None:
    """The length of the body in bytes; None if it is not plain."""
    text = environ.get("CONTENT_LENGTH")
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        return None
    length = int(text)
    return length if length <= MAX_BODY else None


class Answer:
    """The answer to one request: WSGI's start_response, and then the bytes to send."""

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

        Raises ValueError, TypeError or AttributeError for a status or header that would be
        no valid head, or another one than the application means.
        """
        body = b"".join([*self._written, *parts])
        framing = _framings.get(self.status) or _framing(self.status)
        lines = [""]
        length: int | None = None
        for name, value in self.headers:
            kind = _kinds.get(name) or _kind(name)
            # Most values are printable, and that is quickly seen.
            if not (value.isprintable() or HEADER_VALUE_RE.fullmatch(value)):
                raise ValueError(f"a character in the value of {name} that no header may have")
            value = value.strip(" \t")
            if kind is _FIELD:
                lines.append(f"{name}: {value}\r\n")
            elif kind is _LENGTH:
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
            # Whoever reads it would take the next answer for the rest of this one.
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
_framings: dict[str, str] = {}


def _framing(status: str) -> str:
    """How an answer with this status is framed."""
    if not status:
        raise ValueError("the application has not started its response")
    if not STATUS_RE.fullmatch(status):
        raise ValueError("the status is none")
    if status.startswith("304"):
        framing = _LENGTH_ALONE
    else:
        framing = _BARE if status.startswith(("1", "204")) else _WHOLE
    if len(_framings) < _MAX_KEYS:
        _framings[status] = framing
    return framing


_FIELD, _LENGTH, _HOP = "field", "length", "hop"
_kinds: dict[str, str] = {}


def _kind(name: str) -> str:
    """What a response header is to the server."""
    if not TOKEN_RE.fullmatch(name):
        raise ValueError("a character in the name of a header that none may have")
    lower = name.lower()
    kind = _LENGTH if lower == "content-length" else _HOP if util.is_hoppish(name) else _FIELD
    if len(_kinds) < _MAX_KEYS:
        _kinds[name] = kind
    return kind


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

    `closes` is asked when the application is done: meanwhile the worker may have to stop.
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
