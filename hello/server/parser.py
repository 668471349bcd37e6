"""The head of a plain request → its WSGI environment: here a header line is parsed.

Plain is what ordinary clients send all day: HTTP/1.1 on a connection that is kept, a head
of modest size with each field once, a body of known length. Everything else is left, with
every byte of it, to gunicorn's own path (`hello.server.fallback`), which costs five times as much
and knows all of HTTP. So this module refuses nothing; it only recognises.

llhttp parses, the parser of Node.js, through `httptools`. It is lenient in places where
gunicorn is not; `_is_odd` and `HeadParser.parse` close them.
tests/system/server/test_both_paths.py sends the same bytes down both paths and compares.
"""

import re
from functools import lru_cache
from typing import Any

import httptools
from gunicorn import util
from gunicorn.http.wsgi import base_environ

#: The longest head that is plain, in bytes. gunicorn's limits, if smaller, win.
MAX_HEAD = 4096
#: The longest body that is plain, in bytes. A longer one is read as it comes.
MAX_BODY = 65536

#: Keys of header fields that make a request unusual.
_UNUSUAL = frozenset(("HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "HTTP_UPGRADE", "HTTP_TE"))


# Clients send a few names again and again, and may invent any number of others.
@lru_cache(maxsize=1024)
def _key(name: bytes) -> str:
    """The environment's key for a field name; "" if the field makes a request unusual.

    RFC 3875, section 4.1.18.
    """
    text = name.decode("ascii").upper()
    key = text.replace("-", "_")
    if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = f"HTTP_{key}"
    # `X_A` and `X-A` would have the same key: gunicorn's policy for underscores decides.
    return "" if "_" in text or key in _UNUSUAL else key


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


class _Seen:
    """What httptools sees in a head: it calls these methods."""

    __slots__ = ("fields", "url")

    def __init__(self) -> None:
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


class HeadParser:
    """Parses the heads of plain requests on one connection.

    `trusted` says whether gunicorn would believe this peer's forwarding headers.
    """

    def __init__(self, cfg: Any, client: Any, peer: Any, server: Any, *, trusted: bool) -> None:
        #: The longest head to be parsed, in bytes.
        self.max_head = min(cfg.limit_request_line, cfg.limit_request_field_size, MAX_HEAD)
        self._max_fields = cfg.limit_request_fields
        self._forwarding = frozenset(
            "HTTP_" + name.upper().replace("-", "_") for name in cfg.secure_scheme_headers
        )
        self._trusted = trusted
        #: What the environments of all requests on the connection have in common.
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

    def parse(self, head: bytes) -> dict[str, Any] | None:
        """The WSGI environment (PEP 3333) of a whole head, without the body's stream.

        None if the head is not plain.
        """
        line, _, fields = head.partition(b"\r\n")
        if fields == self._fields and (match := _LINE.fullmatch(line)):
            known = self._environ_with_fields.copy()
            _add_line(known, *match.groups())
            return known
        environ = self._parse_anew(head)
        if environ is not None:
            self._fields, self._environ_with_fields = fields, environ.copy()
        return environ

    def _parse_anew(self, head: bytes) -> dict[str, Any] | None:
        """The same, by llhttp: for fields that are not those of the last request."""
        if _is_odd(head):
            return None
        seen = _Seen()
        parser = httptools.HttpRequestParser(seen)
        try:
            parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        method, url = parser.get_method(), seen.url
        # llhttp skips empty lines before the first, and spaces in it.
        if not head.startswith(b"%s %s HTTP/1.1\r\n" % (method, url)):
            return None
        if len(seen.fields) > self._max_fields:
            return None

        environ: dict[str, Any] = self._environ.copy()
        for name, value in seen.fields:
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

        # Only the origin form is plain, and not what looks like the beginning of another form.
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
