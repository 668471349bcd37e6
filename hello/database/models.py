"""The tables: the users, and whether the cache may be used."""

from collections.abc import Iterable
from datetime import date
from typing import Any, NamedTuple

from peewee import (
    BigIntegerField,
    CharField,
    DateField,
    DateTimeField,
    Model,
    SmallIntegerField,
    TextField,
)

from hello.usernames import MAX_LENGTH


class User(Model):
    """One user and one date of birth.

    The username is the primary key: the table has one unique index and no sequence
    that upserts would use up. `version` starts at 1 and grows with every change of
    the date. Both times are the database's.

    The model is bound to no database: `hello.database.statements` compiles its queries for
    each kind.
    """

    username = CharField(max_length=MAX_LENGTH, primary_key=True)
    date_of_birth = DateField()
    version = BigIntegerField()
    created_at = DateTimeField()
    updated_at = DateTimeField()

    class Meta:
        table_name = "users"


class CacheUse(Model):
    """Whether the cache may be used: one row, its `id` is 1. See `hello.cache.permission`."""

    id = SmallIntegerField(primary_key=True)
    generation = BigIntegerField()
    history = TextField()
    suspended_until = DateTimeField()

    class Meta:
        table_name = "cache_use"


class Generation(NamedTuple):
    """A generation of keys, on one cache server. What another one holds is never read."""

    #: Part of each key; drawn at random.
    number: int
    #: What Valkey calls `master_replid`: another one after every start and every promotion.
    history: str


class CacheStanding(NamedTuple):
    """How the cache may be used."""

    generation: Generation
    #: Seconds for which nobody may read from it; 0 if it is not suspended.
    suspended_for: float = 0.0
    #: False if the primary, which says so, is away: others may know of newer writes, and nothing
    #: may be stored.
    confirmed: bool = True


class Record(NamedTuple):
    """What is known of one user."""

    #: None if there is no such user.
    date_of_birth: date | None
    version: int
    #: Whether it was found while the primary was away: newer writes may be missing.
    stale: bool = False


NO_SUCH_USER = Record(None, 0)


def records(names: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> dict[str, Record]:
    """The records of all these users, from the rows of `Statements.find` that were found."""
    found = dict.fromkeys(names, NO_SUCH_USER)
    for name, *columns in rows:
        found[name] = Record(*columns)
    return found
