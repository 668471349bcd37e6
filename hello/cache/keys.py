"""The keys in the cache, and what they hold.

    hello:<form>:<generation>:<run id>:<name>

The primary names the generation (`hello.cache.permission`); the run id is the cache server's
`run_id`. A key holds one of two things:

    v|<version>|<date>   a value
    r|<token>            a lease
"""

import os
from collections.abc import Iterable
from datetime import date

from hello.database.models import Generation, Record

#: The form of the keys. Two releases that serve side by side need the same keys, since each removes
#: what the other has stored. The form of values may change: an unknown one is read as a miss.
FORM = 1


def keys_of(names: Iterable[str], generation: Generation, run_id: str) -> list[str]:
    begin = f"hello:{FORM}:{generation.number}:{run_id}:"
    return [begin + name for name in names]


def new_token() -> str:
    """What a key holds as a lease, until the reader stores what it read."""
    return f"r|{os.urandom(8).hex()}"


def record_of(text: str) -> Record | None:
    """The record in a value; None if `text` is a lease or anything else."""
    try:
        letter, version, born = text.split("|")
        return Record(date.fromisoformat(born), int(version)) if letter == "v" else None
    except ValueError:
        return None


def value_of(record: Record) -> str:
    """The value to store; empty if there is no such user."""
    return f"v|{record.version}|{record.date_of_birth}" if record.date_of_birth else ""
