"""The tables of users and of the use of the cache, and the records that are made of their rows."""

from collections.abc import Iterable
from datetime import date
from typing import Any, NamedTuple, TypeAlias

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
    PostgreSQL and for SQLite.
    """

    username = CharField(max_length=MAX_LENGTH, primary_key=True)
    date_of_birth = DateField()
    version = BigIntegerField()
    created_at = DateTimeField()
    updated_at = DateTimeField()

    class Meta:
        table_name = "users"


class CacheUse(Model):
    """The one row that says how the cache may be used (`hello.cache.permission`); its `id` is 1."""

    id = SmallIntegerField(primary_key=True)
    generation = BigIntegerField()
    history = TextField()
    suspended_until = DateTimeField()

    class Meta:
        table_name = "cache_use"


class Generation(NamedTuple):
    """A generation of keys, on one cache server. Keys of other generations are never read."""

    #: A part of each key; drawn at random.
    number: int
    #: The cache server's `master_replid`, which changes at every start and every promotion.
    history: str


class CacheStanding(NamedTuple):
    """How the cache may be used."""

    generation: Generation
    #: Seconds for which no worker may read from the cache; 0 if it is not suspended.
    suspended_for: float = 0.0
    #: False while the primary is away: there may be newer writes, so nothing may be stored.
    confirmed: bool = True


#: What is saved of a user: the date of birth. Whoever adds a column makes a NamedTuple of it.
Details: TypeAlias = date


class Record(NamedTuple):
    """A user as found in a database or in the cache."""

    #: None if there is no such user.
    date_of_birth: date | None
    version: int
    #: Whether the record was found while the primary was away: newer writes may be missing.
    stale: bool = False


NO_SUCH_USER = Record(None, 0)


def records(names: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> dict[str, Record]:
    """The record of each name, made of the rows that `Statements.find` returned."""
    found = dict.fromkeys(names, NO_SUCH_USER)
    for row in rows:
        found[row[0]] = Record(*row[1:])
    return found
