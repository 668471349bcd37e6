"""A WSGI application that tells what it was given."""

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

#: What two servers need not share: objects of theirs, their ports, and an extension of
#: gunicorn's that the short way does without (PEP 3333 lets a server have any).
OWN = {
    "gunicorn.socket",
    "wsgi.input",
    "wsgi.errors",
    "wsgi.early_hints",
    "wsgi.file_wrapper",
    "SERVER_PORT",
    "REMOTE_PORT",
}


Start = Callable[..., Callable[[bytes], object]]

OK, LENGTH = "200 OK", ("Content-Length", "5")


class Misbehaved(Exception):
    pass


def echo(environ: dict, start: Start) -> list[bytes]:
    """Tell environment and body, and in a header what a HEAD would not show."""
    try:
        body = environ["wsgi.input"].read()
    except Exception as ex:
        body = type(ex).__name__.encode()
    seen = {key: value for key, value in environ.items() if key not in OWN}
    document = json.dumps([seen, body.decode("latin-1")], sort_keys=True).encode()
    digest = hashlib.sha256(document).hexdigest()
    start(OK, [("Content-Length", str(len(document))), ("X-Seen", digest)])
    return [document]


def answering(status: Any, *headers: Any, parts: Iterable[Any] = (b"hello",)) -> Callable:
    def answer(environ: dict, start: Start) -> Iterable[Any]:
        start(status, list(headers))
        return parts

    return answer


def way(environ: dict, start: Start) -> list[bytes]:
    """Tell by which way the request came, by an extension of gunicorn's."""
    said = b"gunicorn" if "wsgi.early_hints" in environ else b"short"
    start(OK, [("Content-Length", str(len(said)))])
    return [said]


def unread(environ: dict, start: Start) -> list[bytes]:
    start(OK, [LENGTH])
    return [b"hello"]


def part_read(environ: dict, start: Start) -> list[bytes]:
    part = environ["wsgi.input"].read(5)
    start(OK, [("Content-Length", str(len(part)))])
    return [part]


def lines(environ: dict, start: Start) -> list[bytes]:
    read = environ["wsgi.input"]
    parts = [read.readline(), read.readline(3), *read.readlines()]
    start(OK, [])
    return [b"|".join(parts)]


def fails_before(environ: dict, start: Start) -> list[bytes]:
    raise Misbehaved


def fails_after(environ: dict, start: Start) -> list[bytes]:
    start(OK, [LENGTH])
    raise Misbehaved


def fails_midway(environ: dict, start: Start) -> Iterable[bytes]:
    start(OK, [LENGTH])
    yield b"he"
    raise Misbehaved


def fails_first(environ: dict, start: Start) -> Iterable[bytes]:
    start(OK, [LENGTH])
    if environ:
        raise Misbehaved
    yield b""


def system_error(environ: dict, start: Start) -> list[bytes]:
    raise ConnectionResetError("of another connection")


def starts_late(environ: dict, start: Start) -> Iterable[bytes]:
    start(OK, [LENGTH])
    yield b"hello"


def starts_twice(environ: dict, start: Start) -> list[bytes]:
    start(OK, [LENGTH])
    start(OK, [LENGTH])
    return [b"hello"]


def starts_again(environ: dict, start: Start) -> list[bytes]:
    start(OK, [("X-First", "1")])
    try:
        raise Misbehaved
    except Misbehaved as ex:
        start("503 Service Unavailable", [LENGTH], (Misbehaved, ex, ex.__traceback__))
    return [b"sorry"]


def never_starts(environ: dict, start: Start) -> list[bytes]:
    return [b"hello"]


def writes(environ: dict, start: Start) -> list[bytes]:
    write = start(OK, [("Content-Length", "10")])
    write(b"hello")
    return [b"world"]


def wraps_a_file(environ: dict, start: Start) -> Iterable[bytes]:
    start(OK, [])
    with open(__file__, "rb") as file:
        yield from environ["wsgi.file_wrapper"](file, 100)


PATHS: dict[str, Callable[[dict, Start], Iterable[Any]]] = {
    "/unread": unread,
    "/part-read": part_read,
    "/lines": lines,
    "/no-length": answering(OK, parts=[b"hel", b"", b"lo"]),
    "/no-length-no-body": answering(OK, parts=[]),
    "/big": answering(OK, ("Content-Length", "1000000"), parts=[bytes(500_000)] * 2),
    "/no-content": answering("204 No Content", parts=[]),
    "/no-content-with-length": answering("204 No Content", LENGTH),
    "/not-modified": answering("304 Not Modified", ("ETag", '"1"'), parts=[]),
    "/not-modified-with-length": answering("304 Not Modified", LENGTH),
    "/early": answering("103 Early Hints", ("Link", "</a>"), parts=[]),
    "/no-reason": answering("404", LENGTH),
    "/odd-status": answering("299 Odd: \xe9", LENGTH),
    "/close": answering(OK, ("Connection", "close"), LENGTH),
    "/Close": answering(OK, ("CONNECTION", "Close"), LENGTH),
    "/close-among-others": answering(OK, ("Connection", "X-A, close"), LENGTH),
    "/hop-by-hop": answering(
        OK, LENGTH, ("Keep-Alive", "timeout=5"), ("Transfer-Encoding", "chunked"), ("TE", "x")
    ),
    "/latin-1": answering(OK, LENGTH, ("X-Name", "Zo\xeb")),
    "/tab": answering(OK, LENGTH, ("X-Tab", "a\tb")),
    "/spaces": answering(OK, ("content-LENGTH", " 5 "), ("X-Spaces", " \ta b\t ")),
    "/empty-value": answering(OK, LENGTH, ("X-Empty", "")),
    "/cookies": answering(OK, LENGTH, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")),
    "/own-date": answering(OK, LENGTH, ("X-A", "1"), ("Server", "mine")),
    "/starts-late": starts_late,
    "/writes": writes,
    "/file": wraps_a_file,
    "/system-error": system_error,
    "/fails-before": fails_before,
    "/fails-after": fails_after,
    "/fails-first": fails_first,
    "/starts-twice": starts_twice,
    "/not-bytes": answering(OK, LENGTH, parts=["hello"]),
    "/bad-length": answering(OK, ("Content-Length", "five")),
    "/status-is-bytes": answering(b"200 OK", LENGTH),
    "/status-without-number": answering("OK", LENGTH),
    "/status-with-a-break": answering("200 OK\r\nX-A: 1", LENGTH),
    "/status-with-a-control": answering("200 O\x01K", LENGTH),
    "/name-with-a-space": answering(OK, LENGTH, ("X A", "1")),
    "/name-with-a-colon": answering(OK, LENGTH, ("X-A: 1", "1")),
    "/name-with-a-break": answering(OK, LENGTH, ("X-A\r\nX-B", "1")),
    "/no-name": answering(OK, LENGTH, ("", "1")),
    "/name-is-bytes": answering(OK, LENGTH, (b"X-A", "1")),
    "/value-with-a-break": answering(OK, LENGTH, ("X-A", "1\r\nX-B: 2")),
    "/value-with-a-line-feed": answering(OK, LENGTH, ("X-A", "1\nX-B: 2")),
    "/value-with-a-nul": answering(OK, LENGTH, ("X-A", "\0")),
    "/value-with-a-control": answering(OK, LENGTH, ("X-A", "\x01")),
    "/value-with-a-delete": answering(OK, LENGTH, ("X-A", "\x7f")),
    "/value-is-a-number": answering(OK, LENGTH, ("X-A", 1)),
    "/value-beyond-latin-1": answering(OK, LENGTH, ("X-A", "\u05d0")),
    "/dropped-value-with-a-break": answering(OK, LENGTH, ("Keep-Alive", "1\r\nX-B: 2")),
    "/too-long": answering(OK, LENGTH, parts=[b"hello", b"HTTP/1.1 200 OK\r\n\r\n"]),
    "/too-short": answering(OK, ("Content-Length", "10")),
    "/starts-again": starts_again,
    "/never-starts": never_starts,
    "/two-lengths": answering(OK, LENGTH, LENGTH),
    "/two-lengths-that-differ": answering(OK, LENGTH, ("Content-Length", "6")),
    "/negative-length": answering(OK, ("Content-Length", "-1")),
    "/fails-midway": fails_midway,
}


def application(environ: dict, start: Start) -> Iterable[Any]:
    def start_with_method(status: Any, headers: list, *exc_info: Any) -> Callable[[bytes], object]:
        # For whoever reads the answer: one to a HEAD has no body.
        return start(status, [*headers, ("X-Method", environ["REQUEST_METHOD"])], *exc_info)

    if environ["PATH_INFO"] == "/way":  # not among PATHS, whose answers are the same on both
        return way(environ, start_with_method)
    answer: Callable[..., Iterable[Any]] = PATHS.get(environ["PATH_INFO"], echo)
    return answer(environ, start_with_method)
