from datetime import date

import pytest

from tests.functional.conftest import StoredUsers
from tests.support.client import Client, assert_problem

#: The zone, and its date while the tests' clock shows 2026-05-17 10:30 UTC.
ZONES = [
    ("Pacific/Kiritimati", date(2026, 5, 18)),
    ("Asia/Tokyo", date(2026, 5, 17)),
    ("UTC", date(2026, 5, 17)),
    ("Pacific/Pago_Pago", date(2026, 5, 16)),
    ("Etc/GMT%2B12", date(2026, 5, 16)),
]


@pytest.mark.parametrize(("zone", "today"), ZONES)
def test_get_counts_from_today_in_the_zone(client: Client, zone: str, today: date) -> None:
    client.put_user("alice", "1990-05-18")
    days = (date(2026, 5, 18) - today).days
    message = f"Your birthday is in {days} day(s)" if days else "Happy birthday!"
    assert client.get_user("alice", f"?tz={zone}").json == {"message": f"Hello, alice! {message}"}


@pytest.mark.parametrize(("zone", "today"), ZONES)
def test_put_accepts_dates_until_today_in_the_zone(
    client: Client, users: StoredUsers, zone: str, today: date
) -> None:
    tomorrow = today.replace(day=today.day + 1)
    assert_problem(client.put_user("alice", str(tomorrow), f"?tz={zone}"), 400, "invalid-date")
    assert users.date_of("alice") is None
    assert client.put_user("alice", str(today), f"?tz={zone}").status_int == 204
    assert users.date_of("alice") == today


@pytest.mark.parametrize(
    "query",
    [
        "?tz=",
        "?tz",
        "?tz=Mars/Olympus",
        "?tz=utc",
        # Names of a host or of the compiler of zones.
        "?tz=Factory",
        "?tz=localtime",
        "?tz=posixrules",
        "?tz=posix/UTC",
        "?tz=right/UTC",
        "?tz=America",
        "?tz=+02:00",
        "?tz=UTC%00",
        "?tz=UTC%0A",
        "?tz=%ff",
        "?tz=..%2Fetc%2Fpasswd",
        "?tz=../../../../etc/passwd",
        "?tz=/etc/localtime",
        "?tz=" + "Europe/" * 500,
    ],
)
def test_an_unknown_zone_is_refused(client: Client, users: StoredUsers, query: str) -> None:
    client.put_user("alice", "1990-05-17")
    for response in (
        client.get_user("alice", query),
        client.get_user("nobody", query),
        client.put_user("alice", "1991-05-17", query),
    ):
        problem = assert_problem(response, 400, "unknown-time-zone")
        assert problem["title"] == "Unknown time zone"
        assert problem["detail"] == (
            "tz must name a zone of the IANA time zone database, as Asia/Tokyo."
        )
    assert users.date_of("alice") == date(1990, 5, 17)


@pytest.mark.parametrize("query", ["?", "?TZ=Mars", "?x=1", "?&&&", "?=", "?%ff=%zz", "?zone=Mars"])
def test_other_parameters_do_not_matter(client: Client, query: str) -> None:
    assert client.put_user("alice", "1990-05-17", query).status_int == 204
    assert client.get_user("alice", query).status_int == 200
