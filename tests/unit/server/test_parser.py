"""The short way recognises nothing that gunicorn's own parser sees differently."""

import random
from itertools import product

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.errors import NoMoreData, ParseException

from hello.server import fallback, parser
from tests.support.requests import HOST, NAMES, PLAIN, UNUSUAL, VALUES, generate, request

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
def heads() -> parser.HeadParser:
    return parser.HeadParser(CFG, None, PEER, SERVER, trusted=True)


def parser_sees(heads: parser.HeadParser, data: bytes) -> tuple[dict, bytes] | None:
    """The same for the short way; None if it leaves the request to gunicorn."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4 or end > heads.max_head:
        return None
    environ = heads.parse(data[:end])
    length = None if environ is None else parser.body_length(environ)
    if environ is None or length is None or len(data) < end + length:
        return None
    seen = {key: value for key, value in environ.items() if key not in OWN}
    return seen, data[end : end + length]


@pytest.mark.parametrize("data", PLAIN)
def test_a_plain_request_is_recognised_and_seen_as_gunicorn_sees_it(
    heads: parser.HeadParser, data: bytes
) -> None:
    assert parser_sees(heads, data) == gunicorn_sees(data) is not None


@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL)
def test_an_unusual_request_is_left_to_gunicorn(heads: parser.HeadParser, data: bytes) -> None:
    assert parser_sees(heads, data) is None


def test_a_peer_that_is_not_trusted_may_send_a_scheme_that_nobody_believes() -> None:
    heads = parser.HeadParser(CFG, None, PEER, SERVER, trusted=False)
    environ = heads.parse(request(HOST, b"X-Forwarded-Proto: https"))
    assert environ is not None
    assert environ["HTTP_X_FORWARDED_PROTO"] == "https"
    assert environ["wsgi.url_scheme"] == "http"


@pytest.mark.parametrize("seed", range(20))
def test_of_generated_requests_those_recognised_are_seen_as_gunicorn_sees_them(
    heads: parser.HeadParser, seed: int
) -> None:
    rng = random.Random(seed)
    recognised = 0
    for _ in range(5000):
        data = generate(rng)
        seen = parser_sees(heads, data)
        if seen is not None:
            recognised += 1
            assert seen == gunicorn_sees(data), data
    assert recognised > 1000  # else this test compares nothing


@pytest.mark.parametrize("seed", range(4))
def test_fields_that_came_before_are_seen_as_gunicorn_sees_them(
    heads: parser.HeadParser, seed: int
) -> None:
    rng = random.Random(seed)
    remembered = 0
    for _ in range(500):
        data = generate(rng)
        if parser_sees(heads, data) is None:
            continue
        rest = data[data.index(b"\r\n") :]
        for _ in range(10):
            other = generate(rng).partition(b"\r\n")[0] + rest
            seen = parser_sees(heads, other)
            if seen is not None:
                remembered += 1
                assert seen == gunicorn_sees(other), other
    assert remembered > 500


@pytest.mark.parametrize(("name", "value"), [*product(NAMES, VALUES)])
def test_no_pair_of_name_and_value_is_seen_differently(
    heads: parser.HeadParser, name: bytes, value: bytes
) -> None:
    for data in (
        request(HOST, name + b": " + value, body=b"{}"),
        request(HOST, b"X-B: 1", name + b":" + value, b"Content-Length: 2", body=b"{}"),
    ):
        seen = parser_sees(heads, data)
        assert seen is None or seen == gunicorn_sees(data), data
