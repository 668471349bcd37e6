"""What the contestants written in Python share: the contract, apart from any framework."""

import json
from datetime import UTC, date, datetime

from hello.birthdays import days_until_birthday


def greeting(username: str, born: date) -> str:
    days = days_until_birthday(born, datetime.now(UTC).date())
    text = f"Your birthday is in {days} day(s)" if days else "Happy birthday!"
    return f"Hello, {username}! {text}"


def parse(body: bytes) -> date:
    """The date in the body of a PUT; raises ValueError."""
    try:
        born = date.fromisoformat(json.loads(body)["dateOfBirth"])
    except (KeyError, TypeError) as ex:
        raise ValueError("no date of birth") from ex
    if born > datetime.now(UTC).date():
        raise ValueError("later than today")
    return born
