from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from hello.app import create_app
from tests.functional.conftest import Clock, StoredUsers
from tests.support.client import Client, assert_problem


@pytest.mark.parametrize(
    ("born", "today", "body"),
    [
        ("1990-05-17", "2026-05-17", b'{"message": "Hello, alice! Happy birthday!"}'),
        ("2026-05-17", "2026-05-17", b'{"message": "Hello, alice! Happy birthday!"}'),
        ("1990-05-18", "2026-05-17", b'{"message": "Hello, alice! Your birthday is in 1 day(s)"}'),
        (
            "1990-05-16",
            "2026-05-17",
            b'{"message": "Hello, alice! Your birthday is in 364 day(s)"}',
        ),
        ("1990-01-01", "2026-12-31", b'{"message": "Hello, alice! Your birthday is in 1 day(s)"}'),
        ("2000-02-29", "2026-02-28", b'{"message": "Hello, alice! Happy birthday!"}'),
        ("2000-02-29", "2028-02-28", b'{"message": "Hello, alice! Your birthday is in 1 day(s)"}'),
        ("2000-02-29", "2028-02-29", b'{"message": "Hello, alice! Happy birthday!"}'),
        (
            "2000-02-29",
            "2027-03-01",
            b'{"message": "Hello, alice! Your birthday is in 365 day(s)"}',
        ),
    ],
)
def test_put_then_get(client: Client, clock: Clock, born: str, today: str, body: bytes) -> None:
    clock.now = datetime.fromisoformat(today).replace(hour=12, tzinfo=UTC)
    assert client.put_user("alice", born).status == "204 No Content"
    response = client.get_user("alice")
    assert response.status == "200 OK"
    assert response.headers["Content-Type"] == "application/json"
    assert response.body == body


def test_put_answers_without_a_body(client: Client) -> None:
    response = client.put_user("alice", "1990-05-17")
    assert response.body == b""
    assert "Content-Type" not in response.headers
    assert "Content-Length" not in response.headers


def test_a_name_of_another_script_is_plain_utf_8(client: Client) -> None:
    client.put_user("Zoë", "1990-05-17")
    assert client.get_user("Zoë").body == '{"message": "Hello, Zoë! Happy birthday!"}'.encode()


def test_an_unknown_user_is_not_found(client: Client) -> None:
    client.put_user("alice", "1990-05-17")
    problem = assert_problem(client.get_user("bob"), 404, "user-not-found")
    assert problem["title"] == "User not found"
    assert problem["detail"] == "There is no entry for this username."


def test_put_changes_the_date(client: Client, users: StoredUsers) -> None:
    for born in ("1990-05-17", "1991-06-18", "1990-05-17"):
        assert client.put_user("alice", born).status_int == 204
        assert users.date_of("alice") == date.fromisoformat(born)


def test_put_of_the_same_date_is_answered_alike(client: Client) -> None:
    first, second = (
        client.put_user("alice", "1990-05-17", headers={"X-Request-ID": "same"}) for _ in range(2)
    )
    assert (first.status, first.headers, first.body) == (
        second.status,
        second.headers,
        second.body,
    )


def test_users_are_separate(client: Client) -> None:
    client.put_user("alice", "1990-05-17")
    client.put_user("bob", "1990-05-18")
    assert b"Happy birthday" in client.get_user("alice").body
    assert b"in 1 day(s)" in client.get_user("bob").body


@pytest.mark.parametrize("born", ["0001-01-01", "1900-02-28", "2000-02-29", "2026-05-17"])
def test_every_day_until_today_is_accepted(client: Client, users: StoredUsers, born: str) -> None:
    assert client.put_user("alice", born).status_int == 204
    assert users.date_of("alice") == date.fromisoformat(born)


FORMAT = "dateOfBirth must be written YYYY-MM-DD."
CALENDAR = "dateOfBirth is not a date of the calendar."
FUTURE = "dateOfBirth is later than today."


@pytest.mark.parametrize(
    ("born", "detail"),
    [
        ("", FORMAT),
        ("19900517", FORMAT),
        ("1990-W20-4", FORMAT),
        ("1990-137", FORMAT),
        ("1990-5-7", FORMAT),
        ("90-05-17", FORMAT),
        ("1990/05/17", FORMAT),
        ("17.05.1990", FORMAT),
        ("1990-05-17T00:00:00", FORMAT),
        ("1990-05-17Z", FORMAT),
        ("1990-05-17\n", FORMAT),
        (" 1990-05-17", FORMAT),
        ("-1990-05-17", FORMAT),
        ("+1990-05-17", FORMAT),
        ("1990–05–17", FORMAT),
        ("１９９０-０５-１７", FORMAT),
        ("١٩٩٠-٠٥-١٧", FORMAT),
        ("1990-05-17\0", FORMAT),
        ("x" * 4000, FORMAT),
        ("0000-01-01", CALENDAR),
        ("1990-00-17", CALENDAR),
        ("1990-13-17", CALENDAR),
        ("1990-05-00", CALENDAR),
        ("1990-05-32", CALENDAR),
        ("1990-02-30", CALENDAR),
        ("1990-02-29", CALENDAR),
        ("1900-02-29", CALENDAR),
        ("2026-05-18", FUTURE),
        ("9999-12-31", FUTURE),
    ],
)
def test_a_wrong_date_is_refused_and_changes_nothing(
    client: Client, users: StoredUsers, born: str, detail: str
) -> None:
    client.put_user("bob", "1990-05-17")
    for name in ("alice", "bob"):
        problem = assert_problem(client.put_user(name, born), 400, "invalid-date")
        assert problem["title"] == "Invalid date of birth"
        assert problem["detail"] == detail
    assert users.date_of("alice") is None
    assert users.date_of("bob") == date(1990, 5, 17)


def test_today_is_where_the_service_is(users: StoredUsers, clock: Clock) -> None:
    ahead = Client(create_app(users, time_zone=ZoneInfo("Pacific/Kiritimati"), clock=clock))
    assert ahead.put_user("alice", "2026-05-18").status_int == 204
    assert b"Happy birthday" in ahead.get_user("alice").body
    behind = Client(create_app(users, time_zone=ZoneInfo("Pacific/Pago_Pago"), clock=clock))
    assert_problem(behind.put_user("alice", "2026-05-17"), 400, "invalid-date")
    assert b"in 2 day(s)" in behind.get_user("alice").body


def test_the_clock_on_the_wall_is_the_default(users: StoredUsers) -> None:
    client = Client(create_app(users))
    today = datetime.now(UTC).date()
    # Two days of room, should midnight pass meanwhile.
    assert client.put_user("alice", str(today - timedelta(days=2))).status_int == 204
    assert_problem(client.put_user("alice", str(today + timedelta(days=2))), 400, "invalid-date")
