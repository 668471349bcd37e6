"""The statements, run on SQLite. Those for PostgreSQL have the same source."""

import json
import re
import sqlite3
from typing import Any

import peewee
import pytest

from hello.database import statements
from hello.database.models import Record, User

PAST = "2000-01-01 00:00:00"


@pytest.fixture
def connection(database: peewee.Database) -> sqlite3.Connection:
    return database.connection()


def save(connection: sqlite3.Connection, **dates: str) -> dict[str, int]:
    return dict(connection.execute(statements.SQLITE.save, (json.dumps(dates),)).fetchall())


def find(connection: sqlite3.Connection, *names: str) -> list[tuple[Any, ...]]:
    found = (connection.execute(statements.SQLITE.find, (name,)).fetchall() for name in names)
    return sorted(row for rows in found for row in rows)


def age(connection: sqlite3.Connection) -> None:
    """Make every row look old: the clock of SQLite has whole seconds."""
    connection.execute("UPDATE users SET created_at = ?, updated_at = ?", (PAST, PAST))


def times(connection: sqlite3.Connection, name: str) -> tuple[str, str]:
    return connection.execute(
        "SELECT created_at, updated_at FROM users WHERE username = ?", (name,)
    ).fetchone()


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        (statements.SQLITE.find, ["?"]),
        (statements.SQLITE.save, ["?"]),
        (statements.SQLITE.forget, ["?"]),
        (statements.POSTGRESQL.find, ["$1"]),
        (statements.POSTGRESQL.save, ["$1", "$2", "$3", "$3"]),
        (statements.POSTGRESQL.forget, ["$1", "$2"]),
        (statements.DISTRIBUTED.find, ["$1"]),
        (statements.DISTRIBUTED.save, ["$1", "$1", "$2", "$3"]),
        (statements.DISTRIBUTED.forget, ["$1", "$2"]),
    ],
)
def test_a_statement_has_the_same_parameters_for_every_batch(
    sql: str, parameters: list[str]
) -> None:
    assert re.findall(r"\?|\$[0-9]+|%\w", sql) == parameters


#: Columns of the key, and of what the database itself counts and dates.
KEPT_BY_THE_DATABASE = {"username", "version", "created_at", "updated_at"}

each_form = pytest.mark.parametrize(
    "form",
    [statements.SQLITE, statements.POSTGRESQL, statements.DISTRIBUTED],
    ids=["sqlite", "postgresql", "distributed"],
)


@each_form
def test_the_columns_that_are_found_are_the_fields_of_a_record(form: statements.Statements) -> None:
    columns, _, _ = form.find.partition(" FROM ")
    *fields, stale = Record._fields
    assert stale == "stale", "it is no column, and comes last"
    assert re.findall(r'"t1"\."(\w+)"', columns) == ["username", *fields]


@each_form
@pytest.mark.parametrize("column", sorted(User._meta.columns.keys() - KEPT_BY_THE_DATABASE))
def test_every_column_is_saved_and_compared(form: statements.Statements, column: str) -> None:
    insert, _, on_conflict = form.save.partition(" ON CONFLICT ")
    update, _, where = on_conflict.partition(" WHERE ")
    [inserted] = re.findall(r'INSERT INTO "users" \((.*?)\)', insert)
    assert f'"{column}"' in inserted
    assert insert.count(f"new.{column}") > 1, "it is not compared with what is stored"
    assert f'"{column}" = EXCLUDED."{column}"' in update, "it is not updated"
    assert f'EXCLUDED."{column}"' in where, "it is not compared with what another writer stored"
    if User._meta.columns[column].null:
        assert f'!= EXCLUDED."{column}"' not in where, "a change from null, or to it, is lost"


def test_a_new_user_has_version_1(connection: sqlite3.Connection) -> None:
    assert save(connection, alice="1990-05-17") == {"alice": 1}
    assert find(connection, "alice") == [("alice", "1990-05-17", 1)]
    created, updated = times(connection, "alice")
    assert created == updated > PAST


def test_the_same_date_changes_nothing(connection: sqlite3.Connection) -> None:
    save(connection, alice="1990-05-17")
    age(connection)
    changes = connection.total_changes
    assert save(connection, alice="1990-05-17") == {}
    assert connection.total_changes == changes
    assert find(connection, "alice") == [("alice", "1990-05-17", 1)]
    assert times(connection, "alice") == (PAST, PAST)


def test_another_date_raises_the_version_by_one(connection: sqlite3.Connection) -> None:
    save(connection, alice="1990-05-17")
    age(connection)
    for version, born in ((2, "1990-05-18"), (3, "1990-05-17"), (4, "1970-01-01")):
        assert save(connection, alice=born) == {"alice": version}
        assert find(connection, "alice") == [("alice", born, version)]
    created, updated = times(connection, "alice")
    assert created == PAST
    assert updated > PAST


def test_a_batch_may_hold_new_changed_and_equal_rows(connection: sqlite3.Connection) -> None:
    save(connection, equal="1990-01-01", changed="1990-01-01", bystander="1990-01-01")
    assert save(connection, equal="1990-01-01", changed="1991-01-01", new="1992-01-01") == {
        "changed": 2,
        "new": 1,
    }
    assert find(connection, "equal", "changed", "new", "bystander") == [
        ("bystander", "1990-01-01", 1),
        ("changed", "1991-01-01", 2),
        ("equal", "1990-01-01", 1),
        ("new", "1992-01-01", 1),
    ]


def test_a_batch_may_be_large(connection: sqlite3.Connection) -> None:
    names = [f"user{number}" for number in range(5000)]
    versions = save(connection, **dict.fromkeys(names, "1990-05-17"))
    assert versions == dict.fromkeys(names, 1)
    assert len(find(connection, *names)) == 5000


def test_find_returns_only_those_asked_for_that_exist(connection: sqlite3.Connection) -> None:
    save(connection, alice="1990-05-17", Alice="1991-05-17", bob="1992-05-17")
    assert find(connection, "alice", "nobody") == [("alice", "1990-05-17", 1)]
    assert find(connection) == []
    assert find(connection, "") == []


def test_an_empty_batch_saves_nothing(connection: sqlite3.Connection) -> None:
    assert save(connection) == {}


@pytest.mark.parametrize(
    "sql", [statements.SQLITE.find, statements.SQLITE.save], ids=["find", "save"]
)
def test_the_table_is_searched_by_its_index_and_never_scanned(
    connection: sqlite3.Connection, sql: str
) -> None:
    plan = [row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", ("[]",))]
    assert any("USING INDEX" in line for line in plan), plan
    assert not [line for line in plan if re.match(r"SCAN (users|known|t1|t2)\b", line)], plan


def forget(connection: sqlite3.Connection, *names: str) -> list[str]:
    rows = connection.execute(statements.SQLITE.forget, (json.dumps(names),)).fetchall()
    return sorted(name for name, _ in rows)


def test_those_who_are_forgotten_are_named_and_nobody_else_is_touched(
    connection: sqlite3.Connection,
) -> None:
    save(connection, alice="1990-05-17", bob="1991-06-18", carol="1992-07-19")
    assert forget(connection, "carol", "dave", "alice") == ["alice", "carol"]
    assert find(connection, "alice", "bob", "carol") == [("bob", "1991-06-18", 1)]
    assert forget(connection) == forget(connection, "alice") == []


def test_a_user_who_was_forgotten_begins_anew(connection: sqlite3.Connection) -> None:
    save(connection, alice="1990-05-17")
    save(connection, alice="1990-05-18")
    forget(connection, "alice")
    assert save(connection, alice="1990-05-18") == {"alice": 1}
