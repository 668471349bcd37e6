"""What the application counts of requests."""

from collections.abc import Callable, Iterator

import pytest

from hello import telemetry
from hello.errors import Overloaded
from tests.functional.client import Client

Changes = Callable[[], dict[tuple[str, ...], float]]


@pytest.fixture
def counted() -> Iterator[Changes]:
    """The requests since the start of the test, by route, method and status."""
    before = {labels: row[0] for labels, row in telemetry.REQUESTS.rows.items()}

    def changes() -> dict[tuple[str, ...], float]:
        rows = telemetry.REQUESTS.rows
        new = {labels: row[0] - before.get(labels, 0) for labels, row in rows.items()}
        return {labels: by for labels, by in new.items() if by}

    return changes


USER = "/hello/{username}"


def test_requests_are_counted_by_template_method_and_status(
    client: Client, counted: Changes
) -> None:
    client.get("/")
    client.get("/hello/alice", expect_errors=True)
    client.put("/hello/alice", '{"dateOfBirth": "1990-05-17"}')
    client.get("/hello/alice")
    client.get("/hello/alice/")
    client.get("/hello/not a name", expect_errors=True)
    client.delete("/hello/alice", expect_errors=True)
    client.get("/nowhere/alice", expect_errors=True)
    client.get("/health/live")
    assert counted() == {
        ("/", "GET", "200"): 1,
        (USER, "GET", "404"): 1,
        (USER, "PUT", "204"): 1,
        (USER, "GET", "200"): 2,
        (USER, "GET", "400"): 1,
        (USER, "DELETE", "405"): 1,
        ("other", "GET", "404"): 1,
        ("/health/live", "GET", "200"): 1,
    }


def test_a_failure_is_counted_with_its_status(
    failing_client: Callable[[Exception], Client], counted: Changes
) -> None:
    failing_client(Overloaded("full")).get("/hello/alice", status=503)
    failing_client(ZeroDivisionError()).get("/hello/alice", status=500)
    assert counted() == {(USER, "GET", "503"): 1, (USER, "GET", "500"): 1}


def test_every_request_is_timed(client: Client) -> None:
    row = telemetry.REQUEST_SECONDS.row(("/health/live", "GET"))
    before = sum(row[:-1])
    for _ in range(3):
        client.get("/health/live")
    assert sum(row[:-1]) == before + 3
