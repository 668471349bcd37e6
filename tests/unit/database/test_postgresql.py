"""What is sent to PostgreSQL, and when: a connection that only notes it."""

import time
from datetime import UTC, date, datetime
from typing import Any

import pytest
from psycopg2 import OperationalError, errors

from hello.database.postgresql import Newest, PostgreSQLConnection
from hello.errors import ConnectionBroken, DatabaseUnavailable, OutcomeUnknown

BORN = date(1990, 5, 17)


class Notes:
    """psycopg2's connection and cursor in one."""

    description = True

    def __init__(self) -> None:
        self.deadline = 0.0
        self.sent: list[Any] = []
        self.answer: Any = []
        self.notices: list[str] = []

    def cursor(self) -> "Notes":
        return self

    def execute(self, sql: str, parameters: Any) -> None:
        self.sent.append(parameters)
        if isinstance(self.answer, Exception):
            raise self.answer

    def fetchall(self) -> Any:
        return self.answer


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def connection(notes: Notes) -> PostgreSQLConnection:
    """A connection to a server whose clock says what ours does."""
    connection: Any = PostgreSQLConnection(notes, 2.0, Newest())  # type: ignore[arg-type]
    clock = datetime.fromtimestamp(time.time(), UTC)
    notes.answer = [(False, 1, clock, clock)]
    connection.configure(time.monotonic() + 5)
    notes.sent.clear()
    notes.answer = []
    return connection


def test_what_nobody_waits_for_any_more_is_not_sent(
    connection: PostgreSQLConnection, notes: Notes
) -> None:
    with pytest.raises(DatabaseUnavailable, match="no time was left"):
        connection.save({"alice": BORN}, time.monotonic())
    assert notes.sent == []


@pytest.mark.parametrize(("left", "waits"), [(5.0, 2.0), (0.5, 0.5)])
def test_the_server_is_to_end_before_its_client(
    connection: PostgreSQLConnection, notes: Notes, left: float, waits: float
) -> None:
    before, clock = time.monotonic(), time.time()
    connection.save({"alice": BORN}, before + left)
    assert notes.deadline - before == pytest.approx(waits, abs=0.1)
    [(names, born, expires)] = notes.sent
    assert (names, born) == (["alice"], ["1990-05-17"])
    assert expires.timestamp() - clock == pytest.approx(0.9 * waits, abs=0.04)


def test_what_came_too_late_was_not_done_and_may_be_done_again(
    connection: PostgreSQLConnection, notes: Notes
) -> None:
    notes.answer = errors.DivisionByZero()
    with pytest.raises(ConnectionBroken, match="too late"):
        connection.save({"alice": BORN}, time.monotonic() + 5)


def test_a_session_that_broke_without_a_word_may_still_bring_its_statement(
    connection: PostgreSQLConnection, notes: Notes
) -> None:
    notes.answer = OperationalError("server closed the connection unexpectedly")
    before = time.monotonic()
    with pytest.raises(OutcomeUnknown) as caught:
        connection.save({"alice": BORN}, before + 5)
    # As long as the server is told that it may save.
    assert caught.value.until - before == pytest.approx(1.8, abs=0.1)


@pytest.mark.parametrize(
    ("notice", "counts"),
    [
        ("WARNING:  canceling wait for synchronous replication due to user request\n", True),
        ("WARNING:  database must be vacuumed within 1000000 transactions\n", False),
        ("FATAL:  terminating connection due to administrator command\n", False),
    ],
)
def test_what_the_server_says_of_a_commit_counts(
    connection: PostgreSQLConnection, notes: Notes, notice: str, counts: bool
) -> None:
    notes.answer = [("alice", 1)]
    notes.notices = Said(notice)
    if counts:
        with pytest.raises(DatabaseUnavailable, match="warned of a commit"):
            connection.save({"alice": BORN}, time.monotonic() + 5)
    else:
        assert connection.save({"alice": BORN}, time.monotonic() + 5) == {"alice": 1}


class Said(list[str]):
    """Notices that come with the next answer."""

    def __init__(self, notice: str) -> None:
        super().__init__()
        self._notice = notice

    def clear(self) -> None:
        self.append(self._notice)


def test_a_table_that_has_lost_its_row_is_said(connection: PostgreSQLConnection) -> None:
    with pytest.raises(DatabaseUnavailable, match="the table cache_use has lost its row"):
        connection.cache_standing(time.monotonic() + 5)
