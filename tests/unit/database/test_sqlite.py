import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hello.database import schema
from hello.database.models import NO_SUCH_USER, Record
from hello.database.sqlite import (
    RETRY_INTERVAL,
    SQLiteConnection,
    SQLiteFile,
    SQLiteMemory,
    patiently,
)
from hello.errors import DatabaseUnavailable, Rejected
from hello.uris import DatabaseURI

BORN = date(1990, 5, 17)

Connect = Callable[..., SQLiteConnection]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database file with the current schema."""
    path = tmp_path / "users.db"
    database = schema.connect(DatabaseURI(f"sqlite:///{path}"), timeout=5)
    schema.upgrade(database)
    database.close()
    return path


@pytest.fixture
def connect(path: Path, deadline: float) -> Iterator[Connect]:
    """Opens connections that are closed after the test."""
    connections = []

    def connect() -> SQLiteConnection:
        connections.append(SQLiteFile(str(path)).connect(deadline))
        return connections[-1]

    yield connect
    for connection in connections:
        connection.close()


@pytest.fixture
def other_process(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    yield connection
    connection.close()


def test_what_was_saved_is_found(memory: SQLiteMemory, deadline: float) -> None:
    connection = memory.connect(deadline)
    assert connection.find(["alice"], deadline) == {"alice": NO_SUCH_USER}
    assert connection.save({"alice": BORN, "Zoë": date.min}, deadline) == {"alice": 1, "Zoë": 1}
    assert connection.find(["alice", "nobody", "Zoë"], deadline) == {
        "alice": Record(BORN, 1),
        "nobody": NO_SUCH_USER,
        "Zoë": Record(date.min, 1),
    }


def test_save_says_the_versions_of_what_it_changed(memory: SQLiteMemory, deadline: float) -> None:
    connection = memory.connect(deadline)
    connection.save({"alice": BORN, "bob": BORN}, deadline)
    assert connection.save({"alice": date.max, "bob": BORN, "carol": BORN}, deadline) == {
        "alice": 2,
        "carol": 1,
    }


@given(
    # A configured pattern may allow quotes, backslashes and control characters.
    st.dictionaries(
        st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.just("\\"),
            max_size=64,
        ),
        st.dates(),
        max_size=5,
    )
)
def test_any_name_comes_back_as_it_was(
    memory: SQLiteMemory, deadline: float, dates: dict[str, date]
) -> None:
    connection = memory.connect(deadline)
    connection.save(dates, deadline)
    found = connection.find(dates, deadline)
    assert {name: birthday.date_of_birth for name, birthday in found.items()} == dates


def test_every_session_sees_the_same_database_in_memory(
    memory: SQLiteMemory, deadline: float
) -> None:
    first = memory.connect(deadline)
    first.save({"alice": BORN}, deadline)
    first.close()
    assert memory.connect(deadline).find(["alice"], deadline) == {"alice": Record(BORN, 1)}


def test_a_database_in_memory_has_the_current_schema(memory: SQLiteMemory, deadline: float) -> None:
    assert schema.pending(memory.connect(deadline).applied(deadline)) == []


def test_a_file_is_shared_and_durable(connect: Connect, deadline: float) -> None:
    first, second = connect(), connect()
    first.save({"alice": BORN}, deadline)
    assert second.find(["alice"], deadline) == {"alice": Record(BORN, 1)}
    second.close()
    first.close()
    assert connect().find(["alice"], deadline) == {"alice": Record(BORN, 1)}


def test_applied_scripts_are_read_and_none_is_applied_to_a_new_file(
    connect: Connect, tmp_path: Path, deadline: float
) -> None:
    assert connect().applied(deadline) == list(schema.NAMES)
    new = SQLiteFile(str(tmp_path / "new.db")).connect(deadline)
    try:
        assert new.applied(deadline) == []
    finally:
        new.close()


def test_readers_do_not_wait_for_a_writer(
    connect: Connect, other_process: sqlite3.Connection, deadline: float
) -> None:
    # As a file is that was not made by `migrate`.
    other_process.execute("PRAGMA journal_mode = delete")
    connection = connect()
    connection.save({"alice": BORN}, deadline)
    other_process.execute("BEGIN EXCLUSIVE")
    other_process.execute("UPDATE users SET date_of_birth = '2000-01-01'")
    assert connection.find(["alice"], deadline) == {"alice": Record(BORN, 1)}


def test_a_write_waits_for_another_process_and_lets_greenlets_run(
    connect: Connect, other_process: sqlite3.Connection, deadline: float
) -> None:
    connection = connect()
    other_process.execute("BEGIN IMMEDIATE")
    save = gevent.spawn(connection.save, {"alice": BORN}, deadline)
    gevent.sleep(0)
    assert not save.ready()
    other_process.execute("COMMIT")
    assert save.get() == {"alice": 1}


def test_the_wait_for_another_process_has_an_end(
    connect: Connect, other_process: sqlite3.Connection, deadline: float
) -> None:
    connection = connect()
    other_process.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable, match="another process keeps the database locked"):
        connection.save({"alice": BORN}, time.monotonic() + 0.02)
    other_process.execute("COMMIT")
    assert connection.save({"alice": BORN}, deadline) == {"alice": 1}


def test_a_lock_that_is_free_too_late_is_not_taken() -> None:
    calls = []

    def call() -> None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            ex = sqlite3.OperationalError("database is locked")
            ex.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise ex

    with pytest.raises(DatabaseUnavailable, match="another process keeps the database locked"):
        patiently(call, time.monotonic() + RETRY_INTERVAL / 2)
    assert len(calls) == 1


def is_open(path: Path) -> bool:
    """Whether this process has the file open."""
    return any(link.resolve() == path.resolve() for link in Path("/proc/self/fd").iterdir())


def test_connecting_to_a_locked_file_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "rollback.db"
    other_process = sqlite3.connect(path, isolation_level=None)
    try:
        other_process.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseUnavailable):
            SQLiteFile(str(path)).connect(time.monotonic() + 0.02)
    finally:
        other_process.close()


def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path, deadline: float) -> None:
    with pytest.raises(DatabaseUnavailable, match="unable to open database file"):
        SQLiteFile(str(tmp_path / "missing" / "users.db")).connect(deadline)


def test_a_file_that_is_no_database_is_unavailable_and_closed(
    tmp_path: Path, deadline: float
) -> None:
    path = tmp_path / "users.db"
    path.write_text("This is not a database. " * 100)
    with pytest.raises(DatabaseUnavailable, match="file is not a database") as caught:
        SQLiteFile(str(path)).connect(deadline)
    # Not by the garbage collector: the exception is still there.
    assert caught.value is not None
    assert not is_open(path)


def test_a_missing_table_is_unavailable(tmp_path: Path, deadline: float) -> None:
    connection = SQLiteFile(str(tmp_path / "new.db")).connect(deadline)
    try:
        with pytest.raises(DatabaseUnavailable, match="no such table"):
            connection.find(["alice"], deadline)
    finally:
        connection.close()


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.DataError("string or blob too big"),
        sqlite3.IntegrityError("NOT NULL constraint failed"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_driver_says_of_a_value_is_a_rejection(error: Exception, deadline: float) -> None:
    def call() -> None:
        raise error

    with pytest.raises(Rejected) as caught:
        patiently(call, deadline)
    assert str(caught.value) == "the database cannot store this value"
