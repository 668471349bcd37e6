"""The keys in the cache, and what they hold.

    hello:<form>:<generation>:<run id>:<name>

The generation is the one that the primary names (`hello.cache.permission`), the run id that of the
server. A key holds one of two things:

    v|<version>|<date>   a value
    r|<token>            a lease
"""

import os
from collections.abc import Iterable
from datetime import date

from hello.database.models import Generation, Record

#: Of the keys. Two releases that serve side by side need the same one: each removes what the
#: other has stored. A value of another form is read as none, so that its form can change.
FORM = 1


def keys_of(names: Iterable[str], generation: Generation, run_id: str) -> list[str]:
    begin = f"hello:{FORM}:{generation.number}:{run_id}:"
    return [begin + name for name in names]


def new_token() -> str:
    """What the key of a user holds until its reader stores what it read."""
    return f"r|{os.urandom(8).hex()}"


def record_of(text: str) -> Record | None:
    """What a value says; None if it is none: a lease, or something that nobody here wrote."""
    try:
        letter, version, born = text.split("|")
        return Record(date.fromisoformat(born), int(version)) if letter == "v" else None
    except ValueError:
        return None


def value_of(record: Record) -> str:
    """The value to store; empty if there is no such user."""
    return f"v|{record.version}|{record.date_of_birth}" if record.date_of_birth else ""
