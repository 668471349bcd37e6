"""Whatever a client sends: no 5xx, and what is stored is what is read back."""

import json
import unicodedata
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import quote, quote_from_bytes
from zoneinfo import available_timezones

from hypothesis import example, given
from hypothesis import strategies as st

from tests.functional.conftest import Clock, StoredUsers
from tests.support.client import Client

TODAY = date(2026, 5, 17)
ZONES = available_timezones()

past_dates = st.dates(max_value=TODAY)


def greeting(name: str, born: date, today: date) -> dict[str, str]:
    """The message, by walking from day to day."""
    day, days = today, 0
    # Who was born on 29 February celebrates on the last day of February.
    while (
        (day.month, day.day) != (born.month, born.day)
        if (born.month, born.day) != (2, 29)
        else not (day.month == 2 and (day + timedelta(1)).month == 3)
    ):
        day, days = day + timedelta(1), days + 1
    message = f"Your birthday is in {days} day(s)" if days else "Happy birthday!"
    return {"message": f"Hello, {name}! {message}"}


def stored(body: bytes) -> date:
    """The date in a body that was accepted, by another JSON library."""
    return date.fromisoformat(json.loads(body)["dateOfBirth"])


@given(born=st.dates(max_value=date(2200, 12, 31)), today=st.dates(max_value=date(2200, 12, 31)))
@example(born=date(2000, 2, 29), today=date(2100, 2, 28))
@example(born=date(1896, 2, 29), today=date(1900, 3, 1))
def test_put_then_get_agrees_with_the_calendar(
    client: Client, clock: Clock, users: StoredUsers, born: date, today: date
) -> None:
    clock.now = datetime.combine(today, time(12), UTC)
    before = users.date_of("alice")
    response = client.put_user("alice", str(born))
    if born > today:
        assert response.status_int == 400
        assert users.date_of("alice") == before
    else:
        assert response.status_int == 204
        assert client.get_user("alice").json == greeting("alice", born, today)


usernames = st.one_of(
    st.binary(min_size=1, max_size=70),
    st.text(min_size=1, max_size=70).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text(st.characters(categories=["L", "M", "Nd"]), min_size=1, max_size=70).map(str.encode),
    st.text("aZ09._-é\u0301", min_size=1, max_size=70).map(str.encode),
)


@given(raw=usernames, born=past_dates)
def test_any_username_is_refused_or_read_back(
    client: Client, users: StoredUsers, raw: bytes, born: date
) -> None:
    path = f"/hello/{quote_from_bytes(raw, safe='')}"
    body = json.dumps({"dateOfBirth": str(born)}).encode()
    response = client.ask("PUT", path, body)
    read = client.ask("GET", path)
    if response.status_int == 204:
        # A slash at the end is not part of the name.
        name = unicodedata.normalize("NFC", raw.decode("utf-8").removesuffix("/"))
        assert users.date_of(name) == born
        assert read.json == greeting(name, born, TODAY)
    else:
        # A slash in the middle makes it another path.
        assert response.status_int == (404 if b"/" in raw.removesuffix(b"/") else 400)
        assert read.status_int == response.status_int


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
json_dates = st.one_of(past_dates.map(str), st.dates().map(str), json_values)
json_bodies = st.one_of(
    st.builds(
        lambda born, more: more | {"dateOfBirth": born},
        json_dates,
        st.dictionaries(st.text(), json_values, max_size=3),
    ),
    json_values,
).map(lambda document: json.dumps(document, ensure_ascii=False))
bodies = st.one_of(
    st.binary(max_size=200),
    json_bodies.map(lambda text: text.encode("utf-8", "surrogatepass")),
    # Cut off, or with a byte that is wrong.
    st.builds(
        lambda text, at, byte: (raw := text.encode())[: at % (len(raw) + 1)] + byte + raw[at:],
        past_dates.map(lambda born: f'{{"dateOfBirth": "{born}"}}'),
        st.integers(0, 40),
        st.binary(max_size=1),
    ),
)


@given(body=bodies, content_type=st.sampled_from([None, "application/json", "text/plain"]))
def test_any_body_is_refused_or_read_back(
    client: Client, users: StoredUsers, body: bytes, content_type: str | None
) -> None:
    before = users.date_of("alice")
    options = {} if content_type is None else {"content_type": content_type}
    response = client.ask("PUT", "/hello/alice", body, **options)
    if response.status_int == 204:
        assert users.date_of("alice") == stored(body)
        assert client.get_user("alice").json == greeting("alice", stored(body), TODAY)
    else:
        assert response.status_int in (400, 413)
        assert users.date_of("alice") == before


@given(born=past_dates, more=st.dictionaries(st.text(), json_values, max_size=3))
def test_any_object_with_a_date_is_accepted(
    client: Client, users: StoredUsers, born: date, more: dict[str, Any]
) -> None:
    body = json.dumps(more | {"dateOfBirth": str(born)}).encode()
    response = client.ask("PUT", "/hello/alice", body)
    assert response.status_int == (204 if len(body) <= 4096 else 413)
    assert len(body) > 4096 or users.date_of("alice") == born


@given(zone=st.sampled_from(sorted(ZONES)) | st.text())
def test_any_zone_is_known_or_refused(client: Client, zone: str) -> None:
    client.put_user("alice", "1990-05-17")
    response = client.get_user("alice", f"?tz={quote(zone, safe='', errors='surrogatepass')}")
    assert response.status_int == (200 if zone in ZONES else 400)


headers = st.dictionaries(
    st.sampled_from(
        [
            "HTTP_ACCEPT",
            "HTTP_CONTENT_ENCODING",
            "HTTP_EXPECT",
            "HTTP_FORWARDED",
            "HTTP_HOST",
            "HTTP_IF_MODIFIED_SINCE",
            "HTTP_IF_NONE_MATCH",
            "HTTP_RANGE",
            "HTTP_TRANSFER_ENCODING",
            "HTTP_UPGRADE",
            "HTTP_X_FORWARDED_FOR",
            "HTTP_X_REQUEST_ID",
            "CONTENT_LENGTH",
            "CONTENT_TYPE",
        ]
    ),
    # WSGI carries the bytes of a header as Latin-1.
    st.text(st.characters(max_codepoint=255), max_size=40) | st.integers().map(str),
)
paths = st.one_of(
    st.sampled_from(["/", "/hello/alice", "/health", "/health/ready", "/nope"]),
    st.binary(max_size=20).map(lambda raw: "/" + quote_from_bytes(raw)),
)


@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "FOO"]),
    path=paths,
    query=st.binary(max_size=20).map(lambda raw: raw.decode("latin-1")),
    environ=headers,
    body=st.sampled_from([b"", b'{"dateOfBirth": "1990-05-17"}', b"x" * 5000]),
)
def test_no_request_is_too_strange(
    client: Client, method: str, path: str, query: str, environ: dict[str, str], body: bytes
) -> None:
    client.lint = False  # it refuses to send some of these
    response = client.ask(method, path, body, environ={"QUERY_STRING": query} | environ)
    assert response.status_int < 500
    assert response.headers["X-Request-ID"]
