"""The table of users."""

from datetime import date
from typing import NamedTuple

from peewee import BigIntegerField, CharField, DateField, DateTimeField, Model

from hello.usernames import MAX_LENGTH


class User(Model):
    """One user and one date of birth.

    The username is the primary key: the table has one unique index and no sequence
    that upserts would use up. `version` starts at 1 and grows with every change of
    the date. Both times are the database's.

    The model is bound to no database: `hello.statements` compiles its queries for
    each kind.
    """

    username = CharField(max_length=MAX_LENGTH, primary_key=True)
    date_of_birth = DateField()
    version = BigIntegerField()
    created_at = DateTimeField()
    updated_at = DateTimeField()

    class Meta:
        table_name = "users"


class Birthday(NamedTuple):
    """What is known of one user."""

    #: None if there is no such user.
    date_of_birth: date | None
    version: int
    #: A replica said so while the primary was away: newer writes may be missing.
    stale: bool = False
