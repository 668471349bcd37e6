import io
from datetime import date
from typing import Any

import pytest
import webtest

from tests.functional.conftest import StoredUsers
from tests.support.client import Client, assert_problem

BODY = b'{"dateOfBirth": "1990-05-17"}'
BORN = date(1990, 5, 17)


def put(client: Client, body: bytes, **options: Any) -> Any:
    return client.ask("PUT", "/hello/alice", body, **options)


def put_stream(client: Client, stream: Any, **environ: Any) -> Any:
    """PUT with a stream that is read as a server would let it be."""
    request = webtest.TestRequest.blank("/hello/alice", method="PUT")
    request.environ.pop("CONTENT_LENGTH", None)
    request.environ |= {"wsgi.input": stream, "webob.is_body_seekable": False} | environ
    return client.do_request(request, expect_errors=True)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/x-www-form-urlencoded",  # what curl -d sends
        "text/plain",
        "text/plain; charset=utf-16",
        "multipart/form-data",
        "application/xml",
        "nonsense",
    ],
)
def test_the_content_type_does_not_matter(
    client: Client, users: StoredUsers, content_type: str
) -> None:
    assert put(client, BODY, content_type=content_type).status_int == 204
    assert users.date_of("alice") == BORN


def test_no_content_type_is_needed(client: Client, users: StoredUsers) -> None:
    response = put(client, BODY)
    assert "CONTENT_TYPE" not in response.request.environ
    assert response.status_int == 204
    assert users.date_of("alice") == BORN


@pytest.mark.parametrize(
    "body",
    [
        b'{"dateOfBirth":"1990-05-17"}',
        b'\r\n\t {"dateOfBirth"\n:\t"1990-05-17" } \n',
        b'{"dateOfBirth": "\\u0031990-05-17"}',
        b'{"dateOf\\u0042irth": "1990-05-17"}',
        b'{"name": "Alice", "dateOfBirth": "1990-05-17", "more": [{}, null, 1e999]}',
        # Of equal keys the last counts, as in every common JSON library.
        b'{"dateOfBirth": "1991-06-18", "dateOfBirth": "1990-05-17"}',
    ],
)
def test_any_json_object_with_the_date_will_do(
    client: Client, users: StoredUsers, body: bytes
) -> None:
    assert put(client, body).status_int == 204
    assert users.date_of("alice") == BORN


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"true",
        b"1990",
        b"NaN",
        b'"1990-05-17"',
        b"[]",
        b'["1990-05-17"]',
        b'[{"dateOfBirth": "1990-05-17"}]',
        b"{}",
        b'{"dateofbirth": "1990-05-17"}',
        b'{"date_of_birth": "1990-05-17"}',
        b'{"dateOfBirth": null}',
        b'{"dateOfBirth": 19900517}',
        b'{"dateOfBirth": NaN}',
        b'{"dateOfBirth": Infinity}',
        b'{"dateOfBirth": true}',
        b'{"dateOfBirth": ["1990-05-17"]}',
        b'{"dateOfBirth": {"year": 1990}}',
        b'{"dateOfBirth": "1990-05-17"',
        b'{"dateOfBirth": "1990-05-17"} {}',
        b'{"dateOfBirth": "1990-05-17",}',
        b"{'dateOfBirth': '1990-05-17'}",
        b"{dateOfBirth: 1990-05-17}",
        b"dateOfBirth=1990-05-17",
        b'{"dateOfBirth": "\\ud800"}',
        b'{"dateOfBirth": "1990-05-17\\x00"}',
        b'{"dateOfBirth": "1990-05-17\n"}',
        b'\xef\xbb\xbf{"dateOfBirth": "1990-05-17"}',  # a byte order mark
        '{"dateOfBirth": "1990-05-17"}'.encode("utf-16"),
        b"\xff",
        b'{"dateOfBirth": "\xff"}',
        b'{"\xff": 1, "dateOfBirth": "1990-05-17"}',
        b"[" * 4000,
        b'{"dateOfBirth": ' + b"[" * 4000,
        b'{"unknown": ' + b"[" * 4000,
    ],
)
def test_anything_else_is_an_invalid_body_and_changes_nothing(
    client: Client, users: StoredUsers, body: bytes
) -> None:
    problem = assert_problem(put(client, body), 400, "invalid-body")
    assert problem["title"] == "Invalid body"
    assert "1990" not in problem["detail"].replace('{"dateOfBirth": "1990-05-17"}', "")
    assert users.date_of("alice") is None


@pytest.mark.parametrize(
    "nested", [b"[" * 2000 + b"]" * 2000, b'{"":' * 800 + b"1" + b"}" * 800], ids=["[", "{"]
)
def test_well_formed_json_is_never_too_deep_for_an_answer(client: Client, nested: bytes) -> None:
    # How deep is too deep differs between versions of Python.
    body = b'{"unknown": ' + nested + b', "dateOfBirth": "1990-05-17"}'
    assert put(client, body).status_int in (204, 400)


def test_a_body_of_4096_bytes_is_read(client: Client, users: StoredUsers) -> None:
    assert put(client, BODY.ljust(4096)).status_int == 204
    assert users.date_of("alice") == BORN


@pytest.mark.parametrize("size", [4097, 100_000])
def test_a_larger_body_is_refused_and_the_connection_closed(
    client: Client, users: StoredUsers, size: int
) -> None:
    response = put(client, BODY.ljust(size))
    problem = assert_problem(response, 413, "body-too-large")
    assert problem["title"] == "Body too large"
    assert problem["detail"] == "A body has at most 4096 bytes."
    # What is left of the body must not be taken for the next request.
    assert response.headers["Connection"] == "close"
    assert users.date_of("alice") is None


@pytest.mark.parametrize(("size", "status"), [(29, 204), (4096, 204), (4097, 413), (100_000, 413)])
def test_a_chunked_body_has_the_same_limit(client: Client, size: int, status: int) -> None:
    response = put_stream(client, io.BytesIO(BODY.ljust(size)), **{"wsgi.input_terminated": True})
    assert response.status_int == status


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "GZIP", "identity, gzip"])
def test_an_encoded_body_is_refused(client: Client, users: StoredUsers, encoding: str) -> None:
    response = put(client, BODY, headers={"Content-Encoding": encoding})
    problem = assert_problem(response, 415, "encoded-body")
    assert problem["title"] == "Encoded body"
    assert response.headers["Accept-Encoding"] == "identity"
    assert users.date_of("alice") is None


def test_the_identity_encoding_is_none(client: Client) -> None:
    assert put(client, BODY, headers={"Content-Encoding": "identity"}).status_int == 204


class BrokenStream(io.RawIOBase):
    """What the server's stream does when it cannot get the body."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def read(self, size: int = -1) -> bytes:
        raise self._error


@pytest.mark.parametrize("how", [{"CONTENT_LENGTH": "29"}, {"wsgi.input_terminated": True}])
def test_a_slow_body_is_a_timeout_that_closes_the_connection(
    client: Client, how: dict[str, Any]
) -> None:
    response = put_stream(client, BrokenStream(TimeoutError()), **how)
    problem = assert_problem(response, 408, "body-timeout")
    assert problem["title"] == "Body too slow"
    assert response.headers["Connection"] == "close"


@pytest.mark.parametrize("error", [ConnectionResetError(), ValueError("no chunk size")])
def test_a_broken_body_is_the_clients_error(client: Client, error: Exception) -> None:
    response = put_stream(client, BrokenStream(error), CONTENT_LENGTH="29")
    problem = assert_problem(response, 400, "invalid-body")
    assert problem["detail"] == "The body could not be read to its end."


def test_a_body_shorter_than_announced_changes_nothing(client: Client, users: StoredUsers) -> None:
    response = put_stream(client, io.BytesIO(BODY), CONTENT_LENGTH="30")
    problem = assert_problem(response, 400, "invalid-body")
    assert problem["detail"] == "The body is shorter than its Content-Length."
    assert users.date_of("alice") is None


@pytest.mark.parametrize("length", ["-1", "x", "1.0", "9" * 5000])
def test_a_content_length_that_is_no_number_is_refused(
    client: Client, users: StoredUsers, length: str
) -> None:
    client.lint = False
    response = put_stream(client, io.BytesIO(BODY), CONTENT_LENGTH=length)
    assert_problem(response, 400)
    assert users.date_of("alice") is None


def test_an_invalid_name_is_told_before_the_body_is_read(client: Client) -> None:
    response = client.ask("PUT", "/hello/a%20b", b"x" * 5000)
    assert_problem(response, 400, "invalid-username")


def test_an_empty_body_is_called_empty(client: Client) -> None:
    problem = assert_problem(put(client, b""), 400, "invalid-body")
    assert problem["detail"] == "The body is empty."
