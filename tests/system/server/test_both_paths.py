"""The short way of a plain request, beside gunicorn's own: the same bytes, the same outcome.

Two real servers with the same application get them: the service, and one with HTTP_SHORT_WAY=off,
for which no request is plain. Compared are status, header fields, the environment and the body
that the application saw, and what becomes of the connection. Where an answer differs, a
test of its own below says how, and why that is right.

tests/unit/server/test_parser.py compares the two parsers on more requests, without sockets.
"""

import os
import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.support.differing import END, Pair, Said, Transcript, pair
from tests.support.probe import PATHS
from tests.support.processes import eventually
from tests.support.requests import PLAIN, UNUSUAL, generate
from tests.support.service import Service

HOST = "Host: example.org"


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    with pair() as servers:
        yield servers


def test_the_two_servers_go_different_ways(servers: Pair) -> None:
    for server, said in zip(servers, (b"short", b"gunicorn"), strict=True):
        with server.client() as client:
            assert client.request("GET", "/way").body == said


def request(line: str, *fields: str, body: bytes = b"") -> bytes:
    """A request, with a length if it has a body; each character of the head is a byte."""
    length = [f"Content-Length: {len(body)}"] if body else []
    head = "\r\n".join([f"{line} HTTP/1.1", HOST, *fields, *length, "", ""])
    return head.encode("latin-1") + body


#: Sent after a request, to see if it is taken for one.
NEXT = request("GET /next?after=all")
CHUNKED = "Transfer-Encoding: chunked"

#: What is sent, in steps. `NEXT` and the end follow.
CASES: dict[str, list[bytes]] = {
    **{f"plain {number}": [data] for number, data in enumerate(PLAIN)},
    **{name: [data] for name, data in UNUSUAL.items()},
    # Framing: RFC 9112, section 6
    "a body": [request("PUT /", body=b"hello")],
    "a body after its head": [request("PUT /", "Content-Length: 5"), b"hello"],
    "a body in three parts": [request("PUT /", "Content-Length: 5"), b"he", b"ll", b"o"],
    "a body of a GET": [request("GET /", body=b"hello")],
    "a body like a request": [request("PUT /", body=NEXT)],
    "no body": [request("PUT /")],
    "a body without a length": [request("PUT /") + b"hello"],
    "a body that nobody reads": [request("PUT /unread", body=b"hello")],
    "a body that is read in part": [request("PUT /part-read", body=b"hello, world!")],
    "the longest plain body": [request("PUT /", body=bytes(65536))],
    "a body that is longer": [request("PUT /", body=bytes(65537))],
    "a long body in parts": [request("PUT /", "Content-Length: 65536"), *[bytes(8192)] * 8],
    "a longer body that nobody reads": [request("PUT /unread", body=bytes(65537))],
    "a length with zeros": [request("PUT /", "Content-Length: 005") + b"hello"],
    "a length with many zeros": [request("PUT /", "Content-Length: 0000000005") + b"hello"],
    "a length with spaces": [request("PUT /", "Content-Length:  5 \t") + b"hello"],
    "a length in other digits": [request("PUT /", "Content-Length: \xb2") + b"hello"],
    "a length with an underscore": [request("PUT /", "Content-Length: 1_0") + b"hello"],
    "a length that is a fraction": [request("PUT /", "Content-Length: 5.0") + b"hello"],
    "a field Content_Length": [request("PUT /", "Content_Length: 5") + b"hello"],
    "a length, then a field like it": [
        request("PUT /", "Content_Length: 3", "Content-Length: 5") + b"hello"
    ],
    "chunks": [request("PUT /", CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n"],
    "chunks in parts": [request("PUT /", CHUNKED), b"5\r\nhe", b"llo\r\n0\r\n", b"\r\n"],
    "chunks with extensions": [request("PUT /", CHUNKED) + b"5;a=b\r\nhello\r\n0;c\r\n\r\n"],
    "trailers": [request("PUT /", CHUNKED, "Trailer: X-A") + b"0\r\nX-A: 1\r\n\r\n"],
    "a trailer that frames": [request("PUT /", CHUNKED) + b"0\r\nContent-Length: 5\r\n\r\n"],
    "chunks that nobody reads": [request("PUT /unread", CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n"],
    "chunks without an end": [request("PUT /", CHUNKED) + b"5\r\nhello\r\n"],
    "a chunk with a wrong size": [request("PUT /", CHUNKED) + b"6\r\nhello\r\n0\r\n\r\n"],
    "a chunk with a sign": [request("PUT /", CHUNKED) + b"+5\r\nhello\r\n0\r\n\r\n"],
    "a chunk that ends with LF": [request("PUT /", CHUNKED) + b"5\nhello\n0\n\n"],
    "chunks and a length": [
        request("PUT /", CHUNKED, "Content-Length: 5") + b"5\r\nhello\r\n0\r\n\r\n"
    ],
    "a length and chunks": [
        request("PUT /", "Content-Length: 15", CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n"
    ],
    "chunked twice": [request("PUT /", CHUNKED, CHUNKED) + b"0\r\n\r\n"],
    "chunked, then gzip": [request("PUT /", "Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n"],
    "gzip, then chunked": [request("PUT /", "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"],
    "chunked after a vertical tab": [request("PUT /", "Transfer-Encoding: \x0bchunked")],
    "chunked with a space before the colon": [request("PUT /", "Transfer-Encoding : chunked")],
    "a folded coding": [request("PUT /", "Transfer-Encoding:\r\n chunked") + b"0\r\n\r\n"],
    "an empty coding": [request("PUT /", "Transfer-Encoding:") + b"0\r\n\r\n"],
    "HTTP/1.0 with chunks": [
        b"PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    ],
    # The connection: RFC 9112, section 9
    "HTTP/1.0 that keeps the connection": [b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"],
    "close among others": [request("GET /", "Connection: close, X-A")],
    "close twice": [request("GET /", "Connection: keep-alive", "Connection: close")],
    "close in capitals": [request("GET /", "Connection: CLOSE")],
    "an empty Connection": [request("GET /", "Connection:")],
    "Connection that names Host": [request("GET /", "Connection: Host")],
    "close and a body": [request("PUT /", "Connection: close", body=b"hello")],
    "pipelined": [NEXT * 5],
    "pipelined with bodies": [request("PUT /", body=b"hello") * 3 + NEXT],
    "pipelined, one that closes": [NEXT + request("GET /", "Connection: close") + NEXT],
    "pipelined, one that is refused": [NEXT + request("GET /", "X_A: 1") + NEXT],
    "pipelined, of all kinds": [
        NEXT
        + request("PUT /", CHUNKED)
        + b"5\r\nhello\r\n0\r\n\r\n"
        + request("PUT /", body=b"hello")
        + request("GET /", "X-A: 1", "X-A: 2")
        + NEXT
    ],
    "pipelined, the application closes": [NEXT + request("GET /close") + NEXT],
    "pipelined, the application fails": [NEXT + request("GET /fails-before") + NEXT],
    "pipelined and cut": [NEXT + NEXT[:20], NEXT[20:]],
    "an empty line between": [NEXT + b"\r\n" + NEXT],
    "two empty lines between": [NEXT + b"\r\n\r\n" + NEXT],
    "an LF between": [NEXT + b"\n" + NEXT],
    "an empty line alone": [b"\r\n"],
    "an empty line, then a request": [b"\r\n", NEXT],
    "half an empty line": [b"\r", b"\n", NEXT],
    "rubbish": [b"\0" * 100],
    "rubbish without an end": [b"a" * 5000],
    "an LF in the first line": [b"GET / HTTP/1.1\nHost: a\n"],
    "a head without an end": [b"GET / HTTP/1.1\r\nHost: a\r\n"],
    "Expect": [request("PUT /", "Expect: 100-continue", "Content-Length: 5"), b"hello"],
    "Expect that nobody reads": [request("PUT /unread", "Expect: 100-continue", body=b"hello")],
    "Expect in capitals": [request("PUT /", "Expect: 100-CONTINUE", body=b"hello")],
    "Expect without a body": [request("GET /", "Expect: 100-continue")],
    "Expect of HTTP/1.0": [
        b"PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"
    ],
    "h2c": [
        request(
            "GET /", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA"
        )
    ],
    "h2c without Connection": [request("GET /", "Upgrade: h2c", "HTTP2-Settings: AAMA")],
    "HTTP/2 with prior knowledge": [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        request("GET /"),
    ],
    # The request line: RFC 9112, section 3
    "the absolute form without Host": [b"GET http://example.org/a?b HTTP/1.1\r\n\r\n"],
    "the absolute form of another host": [request("GET http://other.example/")],
    "the absolute form without a path": [request("GET http://example.org")],
    "CONNECT": [request("CONNECT example.org:443")],
    "CONNECT of a path": [request("CONNECT /")],
    "GET of an authority": [request("GET example.org:443")],
    "GET of an asterisk": [request("GET *")],
    "OPTIONS of a path": [request("OPTIONS /")],
    "TRACE": [request("TRACE /")],
    "a method of one letter": [request("G /")],
    "a method of another protocol": [request("DESCRIBE /")],
    "a method with a hyphen": [request("M-SEARCH /")],
    "a method in mixed case": [request("Get /")],
    "a method with a digit": [request("G3T /")],
    "an empty path": [b"GET  HTTP/1.1\r\n" + HOST.encode() + b"\r\n\r\n"],
    "a path with a space": [request("GET /a b")],
    "a path with dots": [request("GET /a/../b/./c")],
    "a path with a NUL": [request("GET /%00")],
    "a path with a percent sign": [request("GET /%")],
    "a path in Latin-1": [request("GET /\xeb")],
    "a path in UTF-8": [request("GET /Zo\xc3\xab")],
    "a query in UTF-8": [request("GET /?Zo\xc3\xab")],
    "a query with a question mark": [request("GET /?a=?b")],
    "a path like a scheme": [request("GET /http://example.org/")],
    "a path with braces": [request('GET /{a}|\\^`<>"')],
    "a path with a semicolon": [request("GET /a;b?c;d")],
    # Fields: RFC 9112, section 5
    "a long name": [request("GET /", f"X-{'a' * 1000}: 1")],
    "every character of a token": [request("GET /", "!#$%&'*+-.^`|~09azAZ: 1")],
    "a value of every byte": [
        request("GET /", f"X-A: {''.join(map(chr, [*range(0x20, 0x7F), *range(0x80, 0x100)]))}")
    ],
    "a value of ASCII": [request("GET /", f"X-A: {''.join(map(chr, range(0x20, 0x7F)))}")],
    "an empty value": [request("GET /", "X-A:", "X-B: ", "X-C:\t")],
    "a colon in a value": [request("GET /", "X-A: b: c")],
    "two types": [request("PUT /", "Content-Type: a/b", "Content-Type: c/d", body=b"hello")],
    "a field Content_Type": [request("PUT /", "Content_Type: a/b", body=b"hello")],
    "cookies": [request("GET /", "Cookie: a=1", "Cookie: b=2")],
    "an empty host": [b"GET / HTTP/1.1\r\nHost:\r\n\r\n"],
    "a wrong host": [b"GET / HTTP/1.1\r\nHost: a/b@c d\r\n\r\n"],
    "a proxy": [request("GET /", "Proxy: http://evil.example")],
    "script name": [request("GET /", "Script-Name: /")],
    "script_name": [request("GET /", "Script_Name: /")],
    "a scheme that nobody believes": [request("GET /", "X-Forwarded-Proto: https")],
    "forwarded": [request("GET /", "Forwarded: for=1.2.3.4", "X-Forwarded-For: 1.2.3.4")],
    "PROXY, version 2": [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12), NEXT],
}


@pytest.mark.parametrize("case", CASES)
def test_both_ways_end_alike(servers: Pair, case: str) -> None:
    lean, stock = servers.converse(*CASES[case], NEXT, END)
    assert lean == stock


@pytest.mark.parametrize("case", CASES)
def test_both_ways_end_alike_when_nothing_follows(servers: Pair, case: str) -> None:
    lean, stock = servers.converse(*CASES[case], END)
    assert lean == stock


#: Paths of the probe for which the servers are free to differ: see the tests below.
DIFFERENT = {
    "/no-length": "framed",
    "/no-length-no-body": "framed",
    "/lines": "framed",
    "/file": "framed",
    "/too-short": "",
    "/fails-midway": "broken",
    "/not-bytes": "broken",
}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
@pytest.mark.parametrize("path", sorted(PATHS.keys() - DIFFERENT.keys()))
def test_both_ways_send_the_same_answer(servers: Pair, method: str, path: str) -> None:
    asked = request(f"{method} {path}", body=b"hello" if method == "PUT" else b"")
    lean, stock = servers.converse(asked, NEXT, END)
    assert lean == stock
    # An error of the system may be one of the connection: no server answers to it.
    assert bool(lean.answers) == (path != "/system-error")


def unframed(transcript: Transcript) -> list[Said]:
    framing = ("content-length: ", "transfer-encoding: ")
    return [
        said._replace(fields=tuple(f for f in said.fields if not f.startswith(framing)))
        for said in transcript.answers
    ]


@pytest.mark.parametrize("path", [path for path, kind in DIFFERENT.items() if kind == "framed"])
def test_answer_without_a_length_gets_one(servers: Pair, path: str) -> None:
    """gunicorn sends chunks. The short way has the whole body, and so knows its length."""
    lean, stock = servers.converse(request(f"PUT {path}", body=b"a\nbcd\n"), NEXT, END)
    assert unframed(lean) == unframed(stock)
    assert f"content-length: {len(lean.answers[0].body)}" in lean.answers[0].fields
    assert "transfer-encoding: chunked" in stock.answers[0].fields
    assert len(lean.answers) == 2


def test_answer_shorter_than_its_length_ends_the_connection(servers: Pair) -> None:
    """Only the short way knows it in time to say so in the head."""
    lean, stock = servers.converse(request("GET /too-short"), NEXT, END)
    assert not lean.answers
    assert not stock.answers
    assert lean.rest.endswith(b"\r\n\r\nhello")
    assert stock.rest.endswith(b"\r\n\r\nhello")
    assert b"\r\nConnection: close\r\n" in lean.rest


@pytest.mark.parametrize("path", [path for path, kind in DIFFERENT.items() if kind == "broken"])
def test_error_amid_the_body_is_a_500(servers: Pair, path: str) -> None:
    """gunicorn has begun to answer, and can only break off. The short way has sent nothing."""
    lean, stock = servers.converse(request(f"GET {path}"), NEXT, END)
    assert lean.statuses == [500]
    assert not stock.answers
    assert stock.rest in (b"", stock.rest.removesuffix(b"he") + b"he")


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_request_may_be_cut_anywhere(servers: Pair, method: str) -> None:
    body = b"hello" if method == "PUT" else b""
    whole = request(f"{method} /cut?a=%20b", "X-A: 1", "Connection: keep-alive", body=body)
    (expected, same) = servers.converse(whole, NEXT, END)
    assert expected == same
    assert expected.statuses == [200, 200]
    for middle in range(1, len(whole)):
        for transcript in servers.converse(whole[:middle], whole[middle:], NEXT, END):
            assert transcript == expected, f"cut after {whole[:middle]!r}"


def test_end_anywhere_in_a_request(servers: Pair) -> None:
    whole = request("PUT /cut", "X-A: 1", body=b"hello")
    for middle in range(1, len(whole)):
        lean, stock = servers.converse(whole[:middle], END)
        assert lean == stock, f"cut after {whole[:middle]!r}"


# Limits: each case is just below, at, and just above one.

LINE, FIELD, FIELDS = 1000, 500, 20


@pytest.fixture(scope="module")
def configured() -> Iterator[Pair]:
    """Servers with other limits, that believe their peer."""
    with pair(
        *("--limit-request-line", str(LINE)),
        *("--limit-request-field_size", str(FIELD)),
        *("--limit-request-fields", str(FIELDS)),
        *("--forwarded-allow-ips", "127.0.0.1"),
        *("--forwarder-headers", "SCRIPT_NAME,PATH_INFO"),
    ) as servers:
        yield servers


@pytest.mark.parametrize("off", range(-3, 4))
@pytest.mark.parametrize("what", ["line", "field", "fields", "head"])
def test_limits_of_a_head(servers: Pair, configured: Pair, what: str, off: int) -> None:
    for pair_, line, field, fields in [
        (servers, 4094, 8190, 100),
        (configured, LINE, FIELD, FIELDS),
    ]:
        if what == "line":
            asked = request(f"GET /{'a' * (line + off - len('GET / HTTP/1.1'))}")
        elif what == "field":
            asked = request("GET /", f"X-A: {'a' * (field + off - len('X-A: '))}")
        elif what == "fields":
            asked = request("GET /", *(f"X-{n}: 1" for n in range(fields + off - 1)))
        else:  # where a head ceases to be plain
            size = min(line, field, 4096) + off
            asked = request("GET /", "X-A: ", f"X-B: {'b' * (size // 2)}")
            asked = asked.replace(b"X-A: ", b"X-A: " + b"a" * (size - len(asked)))
            assert len(asked) == size
        lean, stock = pair_.converse(asked, NEXT, END)
        assert lean == stock
        in_parts = pair_.converse(asked[:-30], asked[-30:], NEXT, END)
        assert in_parts[0].statuses[:1] == in_parts[1].statuses[:1] == lean.statuses[:1]


# Slow clients

SLOW = {
    "head": [b"GET / HTTP/1.1\r\nHost:"],
    "long head": [b"GET / HTTP/1.1\r\nX-A: " + b"a" * 5000],
    "long head in parts": [b"GET / HTTP/1.1\r\nX-A: ", b"a" * 5000],
    "first line": [b"GET"],
    "empty line": [b"\r\n"],
    "body": [request("PUT /", "Content-Length: 5") + b"he"],
    "body that nobody reads": [request("PUT /unread", "Content-Length: 5") + b"he"],
    "long body": [request("PUT /", "Content-Length: 70000") + b"he"],
    "chunks": [request("PUT /", CHUNKED) + b"5\r\nhe"],
    "expected body": [request("PUT /", "Expect: 100-continue", "Content-Length: 5"), b"he"],
    "second head": [NEXT + b"GET / HTTP/1.1\r\nHost:"],
    "second body": [NEXT + request("PUT /", "Content-Length: 5") + b"he"],
    "idle": [],
    "idle after a request": [NEXT],
    "idle after an unusual request": [request("GET /", "X-A: 1", "X-A: 2")],
}


def test_slow_clients_are_given_up_alike() -> None:
    settings = {"HEAD_TIMEOUT": "0.5", "BODY_TIMEOUT": "0.5"}
    with (
        pair("--keep-alive", "1", **settings) as servers,
        ThreadPoolExecutor(2 * len(SLOW)) as pool,
    ):
        # All at once, since each takes its time.
        told = pool.map(lambda case: (case, servers.converse(*SLOW[case])), SLOW)
        for case, (lean, stock) in told:
            assert lean == stock, case


# Options


FORWARDED = [
    ["X-Forwarded-Proto: https"],
    ["X-Forwarded-Proto: http"],
    ["X-Forwarded-Protocol: ssl"],
    ["X-Forwarded-Ssl: on"],
    ["X-Forwarded-Ssl: off"],
    ["X-Forwarded-Proto: https", "X-Forwarded-Ssl: off"],
    ["X-Forwarded-For: 1.2.3.4"],
    ["X_Forwarded_For: 1.2.3.4"],
    ["Script_Name: /a"],
    ["Path_Info: /a"],
    ["Script_Name: /b"],
]


@pytest.mark.parametrize("fields", FORWARDED, ids=" and ".join)
def test_forwarding_fields_of_a_trusted_proxy(configured: Pair, fields: list[str]) -> None:
    lean, stock = configured.converse(request("GET /a/b", *fields), NEXT, END)
    assert lean == stock


def test_worker_that_has_answered_enough_says_so() -> None:
    # One request was to see if the server is there.
    with pair("--max-requests", "4") as servers:
        lean, stock = servers.converse(NEXT * 5, END)
        assert lean == stock
        closing = ["connection: close" in said.fields for said in lean.answers]
        assert closing == [False, False, True]
        for server in servers:
            assert server.log.count("Autorestarting") == 1
            server.wait_until("/")  # the next worker


def test_access_log_tells_the_same() -> None:
    asked = [
        NEXT,
        request("GET /a%20b?c=%20d", "X-A: 1", "User-Agent: me", "Referer: there"),
        request("PUT /", "Content-Type: a/b", body=b"hello"),
        request("PUT /", CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n",
        request("GET /no-content"),
        request("GET /big"),
        request("GET /no-reason"),
        request("GET /", "X-A: 1", "X-A: 2"),
        request("GET /close"),
    ]
    methods = [data.split()[0].decode() for data in asked]
    with pair(ACCESS_LOG="on") as servers:
        transcripts = servers.converse(b"".join(asked), END)
        assert transcripts[0] == transcripts[1]
        expected = list(zip(methods, transcripts[0].answers, strict=True))

        def lines(server: Service) -> list[str]:
            # Before those of the requests above there are others, of waiting for the server.
            return [line for line in server.log.splitlines() if "bytes" in line][-len(asked) :]

        def all_written(server: Service) -> bool:
            return len(lines(server)) == len(asked)

        for server in servers:
            eventually(partial(all_written, server))
            for line, (method, said) in zip(lines(server), expected, strict=True):
                assert f"{method} {said.status.split()[1]}" in line
                assert re.search(rf"\b{len(said.body)}\b", line)


# Fuzzing

#: Connections with 4 requests each, or a few more. Set FUZZ_SEED to try others, and
#: FUZZ_CONNECTIONS to try more.
CONNECTIONS = int(os.environ.get("FUZZ_CONNECTIONS", "2000"))
SEED = os.environ.get("FUZZ_SEED", "0")
BATCHES = 10


def fuzz(rng: random.Random) -> bytes:
    """Up to 4 requests: some plain, some odd, some cut short or run together."""
    parts = [generate(rng) for _ in range(4)]
    if rng.random() < 0.2:
        parts.insert(rng.randrange(5), rng.choice(PLAIN))
    return b"".join(parts)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_generated_requests_end_alike(servers: Pair, batch: int) -> None:
    # Each has a random generator of its own, to be made again by itself.
    for number in range(CONNECTIONS // BATCHES):
        seed = f"{SEED}/{batch}/{number}"
        data = fuzz(random.Random(seed))
        lean, stock = servers.converse(data + NEXT, END)
        assert unframed(lean) == unframed(stock), f"seed {seed}: {data!r}"
        assert lean.rest == stock.rest, f"seed {seed}: {data!r}"
