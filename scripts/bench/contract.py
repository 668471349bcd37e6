"""What every contestant must answer before it is timed."""

from datetime import UTC, date, datetime, timedelta
from http.client import HTTPException

from scripts.bench.contestants.common import greeting
from tests.support.service import Answer, Client, get, put


class WrongAnswer(Exception):
    pass


def username(number: int) -> str:
    """The name of a stored user; `requests.lua` and `database.py` have the same rule."""
    return f"user{number}"


def birthday(number: int) -> date:
    """The date that is stored for a user at the start; the others have it too."""
    return date(1970, 1, 1) + timedelta(days=number % 10_000)


#: Some frameworks read no other body as JSON.
JSON = {"Content-Type": "application/json"}


def check(client: Client) -> None:
    """Raises WrongAnswer."""
    today = datetime.now(UTC).date()
    _expect("GET of a stored user", _get(client, username(0)), 200, _greeting(0))
    _expect("GET of an unknown user", _get(client, "nobody"), 404)

    # 1972 has a 29 February, so that every day of this year can be moved there.
    around = [(today + timedelta(days=days)).replace(year=1972) for days in (-1, 0, 1)]
    for born in (*around, date(1972, 2, 29)):
        said = greeting("somebody", born)
        _expect(f"PUT {born}", _put(client, "somebody", born), 204, b"")
        _expect(f"GET after PUT {born}", _get(client, "somebody"), 200, said)

    for bad in ("1990-02-30", "17.05.1990", today + timedelta(days=2)):
        _expect(f"PUT {bad}", _put(client, "somebody", bad), 400)


def check_constant(client: Client) -> None:
    """For handlers without a database. Raises WrongAnswer."""
    _expect("GET", _get(client, username(0)), 200, "Hello, world! Happy birthday!")
    _expect("PUT", _put(client, username(0), birthday(0)), 204, b"")


def seed(client: Client, users: int) -> None:
    """Store every user through the front door: for databases in the server's memory."""
    for number in range(users):
        _expect("PUT while seeding", _put(client, username(number), birthday(number)), 204)


def _greeting(number: int) -> str:
    return greeting(username(number), birthday(number))


def _get(client: Client, name: str) -> Answer:
    return _ask(client, *get(name))


def _put(client: Client, name: str, born: date | str) -> Answer:
    return _ask(client, *put(name, str(born)))


def _ask(client: Client, method: str, path: str, body: str | None = None) -> Answer:
    try:
        return client.request(method, path, body, JSON if body else None)
    except (OSError, HTTPException) as ex:
        raise WrongAnswer(f"{method} {path}: {type(ex).__name__}: {ex}") from ex


def _expect(what: str, answer: Answer, status: int, content: bytes | str | None = None) -> None:
    """`content` is a whole body as bytes, or as text the message in a JSON body."""
    got = answer.body
    if answer.status != status:
        raise WrongAnswer(f"{what}: {answer.status} instead of {status}: {got[:200]!r}")
    if isinstance(content, bytes) and got != content:
        raise WrongAnswer(f"{what}: body {got[:200]!r} instead of {content!r}")
    if isinstance(content, str):
        try:
            document = answer.json
        except ValueError:
            document = None
        if document != {"message": content}:
            raise WrongAnswer(f"{what}: {got[:200]!r} instead of the message {content!r}")
