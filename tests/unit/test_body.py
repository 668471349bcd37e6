"""What a server may do to the stream of a body."""

import io
from typing import Any

import falcon
import pytest
from falcon.testing import create_environ

from hello.body import MAX_BYTES, read_body
from hello.problems import BodyTimeout, BodyTooLarge, EncodedBody, InvalidBody, Problem


class Stream(io.BytesIO):
    """Counts what was asked for; `error` is raised instead of an answer."""

    def __init__(self, data: bytes, error: Exception | None = None) -> None:
        super().__init__(data)
        self.asked: list[int | None] = []
        self._error = error

    def read(self, size: int | None = -1) -> bytes:
        self.asked.append(size)
        if self._error:
            raise self._error
        return super().read(size)


def request(stream: Stream, **environ: Any) -> falcon.Request:
    return falcon.Request(create_environ(method="PUT") | {"wsgi.input": stream} | environ)


def with_length(stream: Stream, length: int, **environ: Any) -> falcon.Request:
    return request(stream, CONTENT_LENGTH=str(length), **environ)


def chunked(stream: Stream, **environ: Any) -> falcon.Request:
    return request(stream, **{"wsgi.input_terminated": True}, **environ)


def test_exactly_the_announced_length_is_read() -> None:
    stream = Stream(b"body" + b"next request")
    assert read_body(with_length(stream, 4)) == b"body"
    assert stream.asked == [4]


def test_the_largest_body_is_read() -> None:
    body = b"x" * MAX_BYTES
    assert read_body(with_length(Stream(body), len(body))) == body
    assert read_body(chunked(Stream(body))) == body


def test_a_body_that_is_announced_too_large_is_not_read() -> None:
    stream = Stream(b"x" * (MAX_BYTES + 1))
    with pytest.raises(BodyTooLarge):
        read_body(with_length(stream, MAX_BYTES + 1))
    assert stream.asked == []


def test_of_a_chunked_body_that_is_too_large_little_is_read() -> None:
    stream = Stream(b"x" * 10 * MAX_BYTES)
    with pytest.raises(BodyTooLarge):
        read_body(chunked(stream))
    assert stream.tell() == MAX_BYTES + 1


def test_without_a_length_and_chunks_there_is_no_body() -> None:
    # The stream might be the bare connection: reading would never end.
    stream = Stream(b"next request")
    assert read_body(request(stream)) == b""
    assert read_body(with_length(stream, 0)) == b""
    assert stream.asked == []


@pytest.mark.parametrize("announce", [lambda stream: with_length(stream, 30), chunked])
@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (TimeoutError(), BodyTimeout),
        (ConnectionResetError(), InvalidBody),
        (ValueError("broken chunk"), InvalidBody),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_stream_that_fails_is_the_clients_error(
    announce: Any, error: Exception, problem: type[Problem]
) -> None:
    with pytest.raises(problem):
        read_body(announce(Stream(b"", error)))


def test_a_body_shorter_than_announced_is_invalid() -> None:
    with pytest.raises(InvalidBody):
        read_body(with_length(Stream(b'{"dateOfBirth"'), 30))


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x"])
def test_an_encoded_body_is_not_read(encoding: str) -> None:
    stream = Stream(b"body")
    with pytest.raises(EncodedBody):
        read_body(with_length(stream, 4, HTTP_CONTENT_ENCODING=encoding))
    assert stream.asked == []


@pytest.mark.parametrize("encoding", ["identity", "Identity", " identity "])
def test_the_identity_encoding_is_none(encoding: str) -> None:
    assert read_body(with_length(Stream(b"body"), 4, HTTP_CONTENT_ENCODING=encoding)) == b"body"
