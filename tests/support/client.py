"""A WebTest client for tests that look at errors as much as at answers."""

import json
from typing import Any
from urllib.parse import quote

import webtest

MEDIA_TYPE = "application/problem+json"


class Client(webtest.TestApp):  # type: ignore[misc]
    """Leaves the status to the test; whether the app keeps to WSGI is checked each time."""

    def ask(self, method: str, path: str, body: bytes = b"", **options: Any) -> Any:
        return self.request(path, method=method, body=body, expect_errors=True, **options)

    def get_user(self, username: str, query: str = "", **options: Any) -> Any:
        return self.ask("GET", f"/hello/{quote(username, safe='')}{query}", **options)

    def put_user(self, username: str, born: Any, query: str = "", **options: Any) -> Any:
        body = json.dumps({"dateOfBirth": born}).encode()
        return self.ask("PUT", f"/hello/{quote(username, safe='')}{query}", body, **options)


def assert_problem(response: Any, status: int, kind: str | None = None) -> dict[str, Any]:
    """The answer is a problem document of this status and kind; return it."""
    assert response.status_int == status, response
    assert response.headers["Content-Type"] == MEDIA_TYPE
    problem: dict[str, Any] = json.loads(response.body)
    assert problem.keys() == {"type", "title", "status", "detail", "request_id"}
    assert problem["type"] == (f"/docs#problem-{kind}" if kind else "about:blank")
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["X-Request-ID"]
    for text in (problem["title"], problem["detail"]):
        assert isinstance(text, str)
        assert text
        assert "Traceback" not in text
    return problem
