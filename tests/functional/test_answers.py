"""What all answers have in common: methods, headers, problems."""

import json
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

from hello.errors import (
    ConnectionBroken,
    DatabaseUnavailable,
    DeadlineExceeded,
    Overloaded,
    Rejected,
    SchemaOutdated,
    Unavailable,
)
from hello.telemetry.logs import JSONFormatter
from tests.support.client import Client, assert_problem

READ_ONLY = ["/", "/health", "/health/live", "/health/ready", "/health/startup"]
BODY = b'{"dateOfBirth": "1990-05-17"}'

MakeClient = Callable[[Exception], Client]


def allowed(response: Any) -> set[str]:
    return set(response.headers["Allow"].split(", "))


@pytest.mark.parametrize("path", ["/nope", "/hello/a/b", "/health/nope", "/HELLO/alice"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_an_unknown_path_is_not_found(client: Client, method: str, path: str) -> None:
    problem = assert_problem(client.ask(method, path), 404)
    assert problem["title"] == "Not Found"


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND"])
def test_another_method_on_a_user_is_not_allowed(client: Client, method: str) -> None:
    client.lint = False  # it warns of methods that are rare
    response = client.ask(method, "/hello/alice", BODY)
    problem = assert_problem(response, 405)
    assert problem["title"] == "Method Not Allowed"
    assert allowed(response) == {"GET", "HEAD", "PUT", "OPTIONS"}


@pytest.mark.parametrize("path", READ_ONLY)
@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_what_is_only_read_allows_nothing_else(client: Client, method: str, path: str) -> None:
    response = client.ask(method, path, BODY)
    assert_problem(response, 405)
    assert allowed(response) == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize("method", ["FOO", "get", "WEBSOCKET"])
def test_a_method_that_does_not_exist_is_a_bad_request(client: Client, method: str) -> None:
    client.lint = False
    assert_problem(client.ask(method, "/hello/alice"), 400)


@pytest.mark.parametrize("path", ["/hello/alice", *READ_ONLY])
def test_options_lists_what_is_allowed(client: Client, path: str) -> None:
    response = client.ask("OPTIONS", path)
    assert response.status_int == 200
    assert response.body == b""
    writes = {"PUT"} if path.startswith("/hello/") else set()
    assert allowed(response) - {"OPTIONS"} == {"GET", "HEAD"} | writes


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/hello/alice",
        "/hello/nobody",
        "/hello/alice?tz=Nowhere",
        "/hello/a%20b",
        "/nope",
        "/health/live",
        "/health/ready",
        "/health/startup",
    ],
)
def test_head_has_the_status_and_headers_of_get(client: Client, path: str) -> None:
    client.put_user("alice", "1990-05-17")
    headers = {"X-Request-ID": "same"}
    get, head = (client.ask(method, path, headers=headers) for method in ("GET", "HEAD"))
    assert head.status == get.status
    assert head.headers == get.headers
    assert head.headers["Content-Length"] == str(len(get.body))
    assert head.body == b""


def test_head_of_the_summary_has_no_body(client: Client) -> None:
    # Its length differs from call to call: it has a latency in it.
    response = client.ask("HEAD", "/health")
    assert (response.status_int, response.body) == (200, b"")


EVERY_KIND_OF_ANSWER = [
    ("GET", "/", b"", 200),
    ("PUT", "/hello/alice", BODY, 204),
    ("GET", "/hello/alice", b"", 200),
    ("OPTIONS", "/hello/alice", b"", 200),
    ("GET", "/health", b"", 200),
    ("GET", "/health/live", b"", 200),
    ("GET", "/health/ready", b"", 200),
    ("GET", "/health/startup", b"", 200),
    ("GET", "/hello/a%20b", b"", 400),
    ("PUT", "/hello/alice", b"", 400),
    ("GET", "/hello/nobody", b"", 404),
    ("GET", "/nope", b"", 404),
    ("POST", "/hello/alice", b"", 405),
    ("PUT", "/hello/alice", b"x" * 5000, 413),
]


@pytest.fixture
def populated(client: Client) -> Client:
    client.put_user("alice", "1990-05-17")
    return client


@pytest.mark.parametrize(("method", "path", "body", "status"), EVERY_KIND_OF_ANSWER)
def test_every_answer_has_the_common_headers(
    populated: Client, method: str, path: str, body: bytes, status: int
) -> None:
    response = populated.ask(method, path, body, headers={"X-Request-ID": "a-Sane:id_1.2"})
    assert response.status_int == status
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Request-ID"] == "a-Sane:id_1.2"


@pytest.mark.parametrize("ex", [Overloaded("too many"), RuntimeError("a defect")])
def test_failures_have_the_common_headers_too(failing_client: MakeClient, ex: Exception) -> None:
    response = failing_client(ex).get_user("alice", headers={"X-Request-ID": "sane"})
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Request-ID"] == "sane"


@pytest.mark.parametrize("given", ["a", "0", "A.b_c:d-9", "x" * 128])
def test_a_sane_request_id_is_kept(client: Client, given: str) -> None:
    response = client.ask("GET", "/", headers={"X-Request-ID": given})
    assert response.headers["X-Request-ID"] == given


@pytest.mark.parametrize(
    "given", ["", " ", "a b", "a,b", "a/b", "a\n", "a\tb", "<b>", "é", "x" * 129, "../a", '"']
)
def test_another_request_id_is_replaced(client: Client, given: str) -> None:
    response = client.ask("GET", "/nope", environ={"HTTP_X_REQUEST_ID": given})
    replaced = response.headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{32}", replaced)
    assert assert_problem(response, 404)["request_id"] == replaced


def test_new_request_ids_are_unique(client: Client) -> None:
    ids = {client.ask("GET", "/").headers["X-Request-ID"] for _ in range(100)}
    assert len(ids) == 100


@pytest.mark.parametrize(
    ("ex", "detail"),
    [
        (Unavailable("later"), "Later."),
        (Overloaded("too many requests are waiting"), "Too many requests are waiting."),
        (DeadlineExceeded("the database did not answer"), "The database did not answer."),
        (DatabaseUnavailable("db.internal: refused"), "The database does not answer."),
        (ConnectionBroken("db.internal: closed"), "The database does not answer."),
        (SchemaOutdated("the schema lacks 0001"), "The schema lacks 0001."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_may_work_later_says_when_to_try_again(
    failing_client: MakeClient, ex: Exception, detail: str
) -> None:
    client = failing_client(ex)
    for response in (client.get_user("alice"), client.put_user("alice", "1990-05-17")):
        problem = assert_problem(response, 503, "try-later")
        assert problem["title"] == "Try again later"
        assert problem["detail"] == detail
        assert response.headers["Retry-After"] == "1"
    head = client.ask("HEAD", "/hello/alice")
    assert (head.status_int, head.headers["Retry-After"], head.body) == (503, "1", b"")


def test_a_value_that_the_database_rejects_is_the_clients_error(
    failing_client: MakeClient,
) -> None:
    response = failing_client(Rejected("1990-05-17 of alice")).put_user("alice", "1990-05-17")
    problem = assert_problem(response, 400, "not-storable")
    assert problem["title"] == "Not storable"
    assert problem["detail"] == "The database cannot store this username or date."


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("ex", [RuntimeError("s3cret"), KeyError("s3cret"), RecursionError()])
def test_a_defect_is_a_problem_that_says_nothing_and_is_logged_once(
    failing_client: MakeClient, ex: Exception, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    # One that is made up may hold the digits of a year.
    given = {"X-Request-ID": "asked-for"}
    response = failing_client(ex).ask(method, "/hello/alice", BODY, headers=given)
    problem = assert_problem(response, 500, "internal-error")
    assert problem["title"] == "Internal error"
    assert problem["detail"] == "The service made a mistake. It is in the log."
    assert b"s3cret" not in response.body
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is ex
    assert problem["request_id"] in record.getMessage()
    assert "alice" not in caplog.text
    assert "1990" not in caplog.text


def test_what_a_client_does_wrong_is_not_logged(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    for method, path, body, _ in EVERY_KIND_OF_ANSWER:
        client.ask(method, path, body)
    assert caplog.records == []


def test_problems_are_plain_utf_8(client: Client) -> None:
    response = client.ask("PUT", "/hello/alice", '{"dateOfBirth": "１９９０"}'.encode())
    assert json.loads(response.body.decode("utf-8"))["status"] == 400


def test_the_log_says_which_request_met_a_defect(
    failing_client: Callable[[Exception], Client], caplog: pytest.LogCaptureFixture
) -> None:
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    headers = {"X-Request-ID": "asked-for", "traceparent": f"00-{trace}-{span}-01"}
    failing_client(ZeroDivisionError()).get_user("alice", headers=headers)
    [record] = caplog.records
    document = json.loads(JSONFormatter().format(record))
    assert document["request_id"] == "asked-for"
    assert (document["trace_id"], document["span_id"]) == (trace, span)
    assert "ZeroDivisionError" in document["exception.stacktrace"]
