"""What every contestant must answer before it is timed."""

import json
from datetime import UTC, date, datetime, timedelta
from http.client import HTTPConnection, HTTPException

from hello.birthdays import days_until_birthday


class WrongAnswer(Exception):
    pass


def username(number: int) -> str:
    """The name of a stored user; `requests.lua` and `database.py` have the same rule."""
    return f"user{number}"


def birthday(number: int) -> date:
    """The date that is stored for a user at the start; the others have it too."""
    return date(1970, 1, 1) + timedelta(days=number % 10_000)


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=15)

    def get(self, name: str) -> tuple[int, bytes]:
        return self._ask("GET", name, None)

    def put(self, name: str, born: date | str) -> tuple[int, bytes]:
        return self._ask("PUT", name, json.dumps({"dateOfBirth": str(born)}))

    def _ask(self, method: str, name: str, body: str | None) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            self._connection.request(method, f"/hello/{name}", body, headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, HTTPException) as ex:
            raise WrongAnswer(f"{method} {name}: {type(ex).__name__}: {ex}") from ex


def check(port: int) -> None:
    """Raises WrongAnswer."""
    client = Client(port)
    today = datetime.now(UTC).date()
    _expect("GET of a stored user", client.get(username(0)), 200, _message(0, today))
    _expect("GET of an unknown user", client.get("nobody"), 404)

    # 1972 has a 29 February, so that every day of this year can be moved there.
    around = [(today + timedelta(days=days)).replace(year=1972) for days in (-1, 0, 1)]
    for born in (*around, date(1972, 2, 29)):
        days = days_until_birthday(born, today)
        text = f"Your birthday is in {days} day(s)" if days else "Happy birthday!"
        _expect(f"PUT {born}", client.put("somebody", born), 204, b"")
        _expect(f"GET after PUT {born}", client.get("somebody"), 200, f"Hello, somebody! {text}")

    for bad in ("1990-02-30", "17.05.1990", str(today + timedelta(days=2))):
        _expect(f"PUT {bad}", client.put("somebody", bad), 400)


def check_constant(port: int) -> None:
    """For handlers without a database. Raises WrongAnswer."""
    client = Client(port)
    _expect("GET", client.get(username(0)), 200, "Hello, world! Happy birthday!")
    _expect("PUT", client.put(username(0), birthday(0)), 204, b"")


def seed(port: int, users: int) -> None:
    """Store every user through the front door: for databases in the server's memory."""
    client = Client(port)
    for number in range(users):
        _expect("PUT while seeding", client.put(username(number), birthday(number)), 204)


def _message(number: int, today: date) -> str:
    days = days_until_birthday(birthday(number), today)
    text = f"Your birthday is in {days} day(s)" if days else "Happy birthday!"
    return f"Hello, {username(number)}! {text}"


def _expect(
    what: str, answer: tuple[int, bytes], status: int, content: bytes | str | None = None
) -> None:
    """`content` is a whole body as bytes, or as text the message in a JSON body."""
    got_status, got = answer
    if got_status != status:
        raise WrongAnswer(f"{what}: {got_status} instead of {status}: {got[:200]!r}")
    if isinstance(content, bytes) and got != content:
        raise WrongAnswer(f"{what}: body {got[:200]!r} instead of {content!r}")
    if isinstance(content, str):
        try:
            document = json.loads(got)
        except ValueError:
            document = None
        if document != {"message": content}:
            raise WrongAnswer(f"{what}: {got[:200]!r} instead of the message {content!r}")
