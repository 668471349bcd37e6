from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import peewee
import pytest
from playhouse.migrations import MigrationError

from hello.database import schema
from hello.database.models import User
from hello.errors import DatabaseUnavailable
from hello.uris import DatabaseURI


@pytest.fixture
def uri(tmp_path: Path) -> DatabaseURI:
    return DatabaseURI(f"sqlite:///{tmp_path}/users.db")


@pytest.fixture
def blocker(uri: DatabaseURI) -> Iterator[peewee.Database]:
    """Another process that holds the write lock."""
    database = schema.connect(uri, timeout=5)
    with database.atomic("IMMEDIATE"):
        yield database
    database.close()


def test_scripts_are_numbered_without_a_gap() -> None:
    numbers = [int(name.split("_")[0]) for name in schema.NAMES]
    assert numbers == list(range(1, len(numbers) + 1))


def test_upgrade_applies_every_script_in_order(empty: peewee.Database) -> None:
    assert schema.upgrade(empty) == list(schema.NAMES)
    assert schema.applied(empty) == list(schema.NAMES)


def test_a_second_upgrade_finds_nothing_to_do(database: peewee.Database) -> None:
    User.bind(database)
    User.create(username="alice", date_of_birth="1990-05-17", version=1, created_at=0, updated_at=0)
    assert schema.upgrade(database) == []
    assert User.select().count() == 1


def test_downgrade_reverts_and_upgrade_comes_back(database: peewee.Database) -> None:
    assert schema.downgrade(database, schema.NAMES[0]) == list(reversed(schema.NAMES))
    assert schema.applied(database) == []
    assert database.get_tables() == [schema.TABLE]
    assert schema.upgrade(database) == list(schema.NAMES)
    assert User._meta.table_name in database.get_tables()


def test_downgrade_without_a_target_reverts_the_last_script(database: peewee.Database) -> None:
    assert schema.downgrade(database) == [schema.NAMES[-1]]
    assert schema.pending(schema.applied(database)) == [schema.NAMES[-1]]


def test_downgrade_to_an_unknown_script_changes_nothing(database: peewee.Database) -> None:
    with pytest.raises(MigrationError):
        schema.downgrade(database, "0000_unknown")
    assert schema.pending(schema.applied(database)) == []


def test_what_a_downgrade_loses_is_known_before_and_nothing_is_changed(
    database: peewee.Database,
) -> None:
    # A table without rows is no loss.
    losses = schema.losses(database, schema.NAMES[0])
    assert "the table cache_use with 1 row" in losses
    assert "users" not in " ".join(losses)
    User.bind(database)
    for name in ("alice", "bob"):
        User.create(
            username=name, date_of_birth="1990-05-17", version=1, created_at=0, updated_at=0
        )
    assert schema.losses(database, schema.NAMES[0]) == [*losses, "the table users with 2 rows"]
    assert User.select().count() == 2
    assert schema.pending(schema.applied(database)) == []
    with pytest.raises(MigrationError):
        schema.losses(database, "0000_unknown")


def test_a_column_is_lost_with_what_rows_have_in_it(
    database: peewee.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "9998_note.py").write_text(
        """
def up(migrator, db):
    db.execute_sql("ALTER TABLE users ADD COLUMN note text")


def down(migrator, db):
    db.execute_sql("ALTER TABLE users DROP COLUMN note")
"""
    )
    monkeypatch.setattr(schema, "DIRECTORY", tmp_path)
    assert schema.upgrade(database) == ["9998_note"]
    assert schema.losses(database) == []
    for name, note in (("alice", "'likes cake'"), ("bob", "NULL")):
        database.execute_sql(
            "INSERT INTO users (username, date_of_birth, version, created_at, updated_at, note)"
            f" VALUES ('{name}', '1990-05-17', 1, 0, 0, {note})"
        )
    assert schema.losses(database) == ["the column note of the table users in 1 row"]
    assert schema.downgrade(database) == ["9998_note"]


def test_looking_changes_nothing(empty: peewee.Database) -> None:
    assert schema.applied(empty) == []
    assert empty.get_tables() == []


def test_pending_scripts_keep_their_order() -> None:
    assert schema.pending([]) == list(schema.NAMES)
    assert schema.pending(schema.NAMES) == []
    assert schema.pending(reversed(schema.NAMES)) == []


def test_scripts_of_a_newer_release_do_not_matter() -> None:
    assert schema.pending([*schema.NAMES, "9999_of_a_later_release"]) == []


def test_the_table_is_what_the_model_says(database: peewee.Database) -> None:
    columns = {column.name: column for column in database.get_columns("users")}
    assert columns.keys() == User._meta.columns.keys()
    assert [name for name, column in columns.items() if column.primary_key] == ["username"]
    nullable = {name for name, field in User._meta.columns.items() if field.null}
    assert {name for name, column in columns.items() if column.null} == nullable
    assert [index.columns for index in database.get_indexes("users") if index.unique] == [
        ["username"]
    ]


def test_several_at_once_apply_each_script_once(uri: DatabaseURI) -> None:
    def upgrade(_: int) -> list[str]:
        database = schema.connect(uri, timeout=20)
        try:
            return schema.upgrade(database)
        finally:
            database.close()

    with ThreadPoolExecutor(4) as threads:
        applied = list(threads.map(upgrade, range(4)))
    assert sorted(applied) == [[], [], [], list(schema.NAMES)]


def test_the_wait_for_another_migration_has_an_end(
    uri: DatabaseURI, blocker: peewee.Database
) -> None:
    database = schema.connect(uri, timeout=0.01)
    try:
        with pytest.raises(DatabaseUnavailable):
            schema.upgrade(database, wait=0.05)
    finally:
        database.close()


def test_no_connection_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="unable to open database file"):
        schema.connect(DatabaseURI(f"sqlite:///{tmp_path}/missing/users.db"), timeout=1)
