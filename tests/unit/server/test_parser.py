"""The short way recognises nothing that gunicorn's own parser sees differently."""

import random
from itertools import product

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.errors import NoMoreData, ParseException

from hello.server import fallback, parser

CFG = Config()
PEER, SERVER = ("127.0.0.1", 50000), ("127.0.0.1", 8080)

#: What the two ways need not share: objects of the server, and an extension of gunicorn's.
OWN = {"gunicorn.socket", "wsgi.input", "wsgi.errors", "wsgi.early_hints"}


class Sent:
    """A client that has sent all that it will."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def receive(self, deadline: float) -> bytes:
        data, self._data = self._data, b""
        return data

    def send(self, data: bytes) -> None:
        raise AssertionError("nothing is answered")


def gunicorn_sees(data: bytes) -> tuple[dict, bytes] | None:
    """The environment and the body of the first request in `data`; None if it is refused.

    A request that gunicorn would answer and then close, or greet with 100 Continue, is
    refused too: the short way does neither.
    """
    try:
        request = next(fallback.RequestParser(CFG, Sent(data), PEER))
        if request.should_close() or request._expected_100_continue:
            return None
        request.proxy_protocol_info = {}
        environ = wsgi.create(request, None, PEER, SERVER, CFG)[1]
        body = request.body.read()
    except (ParseException, NoMoreData, StopIteration):
        return None
    environ["wsgi.multithread"] = True
    return {key: value for key, value in environ.items() if key not in OWN}, body


@pytest.fixture(scope="module")
def template() -> parser.Template:
    return parser.Template(CFG, None, PEER, SERVER, trusted=True)


def lean_sees(template: parser.Template, data: bytes) -> tuple[dict, bytes] | None:
    """The same for the short way; None if it leaves the request to gunicorn."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4 or end > template.max_head:
        return None
    environ = template.environ(data[:end])
    length = None if environ is None else parser.body_length(environ)
    if environ is None or length is None or len(data) < end + length:
        return None
    seen = {key: value for key, value in environ.items() if key not in OWN}
    return seen, data[end : end + length]


def request(*fields: bytes, line: bytes = b"GET /hello/alice HTTP/1.1", body: bytes = b"") -> bytes:
    return b"\r\n".join([line, *fields, b"", body])


HOST = b"Host: example.org"

PLAIN = [
    request(HOST),
    request(HOST, b"User-Agent: curl/8.0", b"Accept: */*"),
    request(HOST, b"Connection: keep-alive"),
    request(HOST, b"connection: Keep-Alive"),
    request(HOST, b"X-Empty:"),
    request(HOST, b"X-Spaces:  \t a  b \t "),
    request(HOST, line=b"HEAD / HTTP/1.1"),
    request(HOST, line=b"OPTIONS /hello/alice HTTP/1.1"),
    request(HOST, line=b"GET /hello/alice?tz=Asia/Tokyo&x=%20 HTTP/1.1"),
    request(HOST, line=b"GET /hello/alice? HTTP/1.1"),
    request(HOST, line=b"GET /hello/%D7%90%ff%00%2F HTTP/1.1"),
    request(HOST, line=b"GET /a;b=c//d/../e HTTP/1.1"),
    request(HOST, b"Content-Length: 2", line=b"PUT /hello/a HTTP/1.1", body=b"{}"),
    request(HOST, b"content-length: 0", b"Content-Type: text/plain", line=b"PUT /a HTTP/1.1"),
]

UNUSUAL = {
    "no host": request(b"Accept: */*"),
    "no fields": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": request(HOST, HOST),
    "two hosts that differ": request(HOST, b"Host: other.example"),
    "a repeated field": request(HOST, b"X-A: 1", b"X-A: 2"),
    "two lengths": request(HOST, b"Content-Length: 2", b"Content-Length: 2", body=b"{}"),
    "two lengths that differ": request(HOST, b"Content-Length: 2", b"Content-Length: 3"),
    "a list of lengths": request(HOST, b"Content-Length: 2, 2", body=b"{}"),
    "a signed length": request(HOST, b"Content-Length: +2", body=b"{}"),
    "a negative length": request(HOST, b"Content-Length: -1"),
    "a hexadecimal length": request(HOST, b"Content-Length: 0x2", body=b"{}"),
    "an empty length": request(HOST, b"Content-Length:"),
    "a huge length": request(HOST, b"Content-Length: 99999999999999999999"),
    "a chunked body": request(HOST, b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "a length and chunks": request(
        HOST, b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    "an unknown coding": request(HOST, b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "a folded field": request(HOST, b"X-A: 1", b" 2"),
    "a folded field with a tab": request(HOST, b"X-A: 1", b"\t2"),
    "a folded first field": request(b" Host: a", HOST),
    "a space before the colon": request(HOST, b"X-A : 1"),
    "a name with a space": request(HOST, b"X A: 1"),
    "an empty name": request(HOST, b": 1"),
    "a field without a colon": request(HOST, b"X-A"),
    "an underscore": request(HOST, b"X_A: 1"),
    "an underscore and a hyphen": request(HOST, b"X-A: 1", b"X_A: 2"),
    "a bare CR in a value": request(HOST, b"X-A: 1\r2"),
    "a bare LF in a value": request(HOST, b"X-A: 1\n2"),
    "lines that end with LF": request(HOST).replace(b"\r\n", b"\n"),
    "one line that ends with LF": request(HOST, b"X-A: 1\nX-B: 2"),
    "a NUL": request(HOST, b"X-A: \0"),
    "a control character": request(HOST, b"X-A: \x01"),
    "a value beyond ASCII": request(HOST, b"X-A: \xe9"),
    "a name beyond ASCII": request(HOST, b"X-\xe9: 1"),
    "a target beyond ASCII": request(HOST, line="GET /hello/Zoë HTTP/1.1".encode()),
    "an empty line first": b"\r\n" + request(HOST),
    "two empty lines first": b"\r\n\r\n" + request(HOST),
    "HTTP/1.0": request(HOST, line=b"GET / HTTP/1.0"),
    "HTTP/1.2": request(HOST, line=b"GET / HTTP/1.2"),
    "HTTP/2.0": request(HOST, line=b"GET / HTTP/2.0"),
    "HTTP/0.9": request(line=b"GET /"),
    "a version in lower case": request(HOST, line=b"GET / http/1.1"),
    "a method in lower case": request(HOST, line=b"get / HTTP/1.1"),
    "two spaces": request(HOST, line=b"GET  / HTTP/1.1"),
    "a tab for a space": request(HOST, line=b"GET\t/ HTTP/1.1"),
    "a space at the end": request(HOST, line=b"GET / HTTP/1.1 "),
    "the absolute form": request(HOST, line=b"GET http://example.org/ HTTP/1.1"),
    "the authority form": request(HOST, line=b"CONNECT example.org:80 HTTP/1.1"),
    "the asterisk form": request(HOST, line=b"OPTIONS * HTTP/1.1"),
    "a target that begins with two slashes": request(HOST, line=b"GET //a/b HTTP/1.1"),
    "a fragment": request(HOST, line=b"GET /a#b HTTP/1.1"),
    "Connection: close": request(HOST, b"Connection: close"),
    "a list in Connection": request(HOST, b"Connection: keep-alive, X-A"),
    "Upgrade": request(HOST, b"Upgrade: websocket", b"Connection: Upgrade"),
    "HTTP2-Settings": request(HOST, b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
    "Expect": request(HOST, b"Expect: 100-continue", b"Content-Length: 2", body=b"{}"),
    "an unknown expectation": request(HOST, b"Expect: tea"),
    "TE": request(HOST, b"TE: trailers"),
    "a scheme from a trusted proxy": request(HOST, b"X-Forwarded-Proto: https"),
    "too many fields": request(HOST, *(b"X-%d: 1" % n for n in range(200))),
    "a long value": request(HOST, b"X-A: " + b"a" * 5000),
    "a long target": request(HOST, line=b"GET /" + b"a" * 5000 + b" HTTP/1.1"),
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "PROXY": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + request(HOST),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("data", PLAIN)
def test_a_plain_request_is_recognised_and_seen_as_gunicorn_sees_it(
    template: parser.Template, data: bytes
) -> None:
    assert lean_sees(template, data) == gunicorn_sees(data) is not None


@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL)
def test_an_unusual_request_is_left_to_gunicorn(template: parser.Template, data: bytes) -> None:
    assert lean_sees(template, data) is None


def test_a_peer_that_is_not_trusted_may_send_a_scheme_that_nobody_believes() -> None:
    template = parser.Template(CFG, None, PEER, SERVER, trusted=False)
    environ = template.environ(request(HOST, b"X-Forwarded-Proto: https"))
    assert environ is not None
    assert environ["HTTP_X_FORWARDED_PROTO"] == "https"
    assert environ["wsgi.url_scheme"] == "http"


METHODS = [b"GET", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"get", b"G", b"PRI", b"M-SEARCH", b""]
TARGETS = [
    *(b"/", b"/hello/alice", b"/hello/%41?a=b", b"/hello/\xc3\xab", b"*", b"//a", b"/a#b", b""),
    *(b"http://a/b", b"a:80", b"/%", b"/%zz", b"/a b", b"/\x7f", b"/?", b"/[", b"/a\\b", b"/..;/"),
]
VERSIONS = [b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/1.10", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 "]
NAMES = [
    *(b"Host", b"host", b"Accept", b"X-A", b"x-a", b"X_A", b"Content-Length", b"Content-Type"),
    *(b"Transfer-Encoding", b"Connection", b"Expect", b"Upgrade", b"TE", b"Trailer", b"Cookie"),
    *(
        b"X-Forwarded-Proto",
        b"X-Forwarded-For",
        b"Script-Name",
        b"X A",
        b"X-A ",
        b"",
        b"\xe9",
        b"A!",
    ),
    *(b"Keep-Alive", b"Proxy-Connection", b"Content_Length", b"HTTP2-Settings", b"Host:"),
]
VALUES = [
    *(
        b"example.org",
        b"",
        b" ",
        b"0",
        b"2",
        b"+2",
        b"2, 2",
        b"02",
        b" 2 ",
        b"\xb2",
        b"1e1",
        b"2\t",
    ),
    *(
        b"chunked",
        b"Chunked",
        b"identity",
        b"gzip, chunked",
        b"close",
        b"keep-alive",
        b"Keep-Alive",
    ),
    *(
        b"keep-alive, close",
        b"upgrade",
        b"100-continue",
        b"https",
        b"a\rb",
        b"a\nb",
        b"a\0b",
        b"\x7f",
    ),
    *(b"a\x0bb", b"\xc3\xab", b"a" * 300, b'"quoted"', b"a,b;c=d", b"h2c", b"trailers"),
]
ENDS = [b"\r\n"] * 30 + [b"\n", b"\r", b"\r\n ", b"\r\n\t", b"\n\r", b"\r\r\n"]
BYTES = [*(bytes([n]) for n in range(256)), b"\r\n", b"\r\n\r\n", b": ", b"HTTP/1.1"]


def generate(rng: random.Random) -> bytes:
    """Something like a request, odd in no place, or in a few."""
    pick = rng.choice
    odd = rng.random() < 0.5

    def part(parts: list[bytes], usual: int) -> bytes:
        return pick(parts if odd and rng.random() < 0.3 else parts[:usual])

    def end() -> bytes:
        return part(ENDS, 1)

    fields = [(b"Host", b"example.org")] if rng.random() < 0.95 else []
    fields += [(part(NAMES[2:], 2), part(VALUES, 5)) for _ in range(rng.randrange(3))]
    rng.shuffle(fields)
    line = b" ".join([part(METHODS, 5), part(TARGETS, 3), part(VERSIONS, 6)])
    head = line + end() + b"".join(n + pick([b": ", b":"]) + v + end() for n, v in fields)
    data = head + end() + pick([b"", b"{}", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
    while odd and rng.random() < 0.4:
        at = rng.randrange(len(data) + 1)
        data = data[:at] + pick(BYTES) * rng.randrange(3) + data[at + rng.randrange(3) :]
    return data


@pytest.mark.parametrize("seed", range(20))
def test_of_generated_requests_those_recognised_are_seen_as_gunicorn_sees_them(
    template: parser.Template, seed: int
) -> None:
    rng = random.Random(seed)
    recognised = 0
    for _ in range(5000):
        data = generate(rng)
        seen = lean_sees(template, data)
        if seen is not None:
            recognised += 1
            assert seen == gunicorn_sees(data), data
    assert recognised > 1000  # else this test compares nothing


@pytest.mark.parametrize("seed", range(4))
def test_fields_that_came_before_are_seen_as_gunicorn_sees_them(
    template: parser.Template, seed: int
) -> None:
    rng = random.Random(seed)
    remembered = 0
    for _ in range(500):
        data = generate(rng)
        if lean_sees(template, data) is None:
            continue
        rest = data[data.index(b"\r\n") :]
        for _ in range(10):
            other = generate(rng).partition(b"\r\n")[0] + rest
            seen = lean_sees(template, other)
            if seen is not None:
                remembered += 1
                assert seen == gunicorn_sees(other), other
    assert remembered > 500


@pytest.mark.parametrize(("name", "value"), [*product(NAMES, VALUES)])
def test_no_pair_of_name_and_value_is_seen_differently(
    template: parser.Template, name: bytes, value: bytes
) -> None:
    for data in (
        request(HOST, name + b": " + value, body=b"{}"),
        request(HOST, b"X-B: 1", name + b":" + value, b"Content-Length: 2", body=b"{}"),
    ):
        seen = lean_sees(template, data)
        assert seen is None or seen == gunicorn_sees(data), data
