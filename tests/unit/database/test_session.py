"""Sessions over fake connections whose every call goes as the test says."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import gevent
import pytest

from hello.database import schema
from hello.database.session import CurrentSchema, Session
from hello.errors import (
    ConnectionBroken,
    DatabaseUnavailable,
    OutcomeUnknown,
    Rejected,
    SchemaOutdated,
    ServiceError,
)
from hello.telemetry import metrics


class FakeConnection:
    """Answers with its own number for every key, but does `script` first, call by call."""

    def __init__(self, number: int, applied: Iterable[str]) -> None:
        self.number = number
        self.script: list[BaseException | None] = []
        self.bad_keys: set[str] = set()
        self.batches: list[dict[str, Any]] = []
        self.closed = False
        self._applied = applied

    def applied(self, deadline: float) -> list[str]:
        if isinstance(self._applied, BaseException):
            raise self._applied
        return list(self._applied)

    def prepare(self, deadline: float) -> None:
        assert not self.closed

    def save(self, batch: dict[str, Any], deadline: float) -> dict[str, int]:
        assert not self.closed
        self.batches.append(batch)
        step = self.script.pop(0) if self.script else None
        if step is not None:
            raise step
        if self.bad_keys & batch.keys():
            raise Rejected("the database cannot store this value")
        return dict.fromkeys(batch, self.number)

    def close(self) -> None:
        self.closed = True


class FakeConnector:
    """Connects, unless `down` says why not. `prepare` sees each new connection first."""

    def __init__(self) -> None:
        self.connections: list[FakeConnection] = []
        self.attempts = 0
        self.down: Exception | None = None
        self.applied: Any = schema.NAMES
        self.prepare: Callable[[FakeConnection], None] = lambda connection: None

    def connect(self, deadline: float) -> FakeConnection:
        self.attempts += 1
        if self.down:
            raise self.down
        connection = FakeConnection(len(self.connections) + 1, self.applied)
        self.connections.append(connection)
        self.prepare(connection)
        return connection

    @property
    def closed(self) -> list[bool]:
        return [connection.closed for connection in self.connections]


@pytest.fixture
def connector() -> FakeConnector:
    return FakeConnector()


@pytest.fixture
def session(connector: FakeConnector) -> Callable:
    """A lane."""
    return Session(CurrentSchema(connector)).save


def test_a_connection_is_opened_when_first_needed_and_kept(
    connector: FakeConnector, session: Callable, deadline: float
) -> None:
    assert connector.attempts == 0
    assert session({"a": 1}, deadline) == {"a": 1}
    assert session({"b": 1, "c": 1}, deadline) == {"b": 1, "c": 1}
    assert connector.attempts == 1
    assert connector.connections[0].batches == [{"a": 1}, {"b": 1, "c": 1}]


def test_every_step_is_told_the_same_deadline() -> None:
    told = []

    class Connection(FakeConnection):
        def applied(self, deadline: float) -> list[str]:
            told.append(deadline)
            return list(schema.NAMES)

        def save(self, batch: dict[str, Any], deadline: float) -> dict[str, int]:
            told.append(deadline)
            return {}

    class Connector:
        def connect(self, deadline: float) -> Connection:
            told.append(deadline)
            return Connection(1, ())

    deadline = time.monotonic() + 10
    Session(CurrentSchema(Connector())).save({"a": 1}, deadline)
    assert told == [deadline] * 3


def test_a_batch_whose_connection_broke_is_repeated_once_on_a_new_one(
    connector: FakeConnector, session: Callable, deadline: float
) -> None:
    session({"a": 1}, deadline)
    connector.connections[0].script = [ConnectionBroken("gone")]
    assert session({"b": 1, "c": 1}, deadline) == {"b": 2, "c": 2}
    assert connector.closed == [True, False]
    assert connector.connections[1].batches == [{"b": 1, "c": 1}]


def test_a_batch_is_not_repeated_twice(
    connector: FakeConnector, session: Callable, deadline: float
) -> None:
    connector.prepare = lambda connection: connection.script.append(ConnectionBroken("gone"))
    with pytest.raises(ConnectionBroken):
        session({"a": 1}, deadline)
    assert connector.closed == [True, True]
    connector.prepare = lambda connection: None
    assert session({"a": 1}, deadline) == {"a": 3}


def test_what_may_still_arrive_is_repeated_once_it_is_over(
    connector: FakeConnector, session: Callable, deadline: float
) -> None:
    session({"a": 1}, deadline)
    asked: list[int] = []

    def is_over(connection: FakeConnection, end: float) -> bool:
        assert connector.connections[0].closed
        assert connection.batches == []
        asked.append(connection.number)
        return len(asked) == 3

    connector.connections[0].script = [OutcomeUnknown("reset", deadline, is_over)]
    assert session({"b": 1}, deadline) == {"b": 2}
    assert asked == [2, 2, 2]


@pytest.mark.parametrize("answers", [True, False])
def test_what_may_still_arrive_is_neither_repeated_nor_answered_in_its_time(
    connector: FakeConnector, session: Callable, deadline: float, answers: bool
) -> None:
    session({"a": 1}, deadline)
    until = time.monotonic() + 0.2

    def is_over(connection: FakeConnection, end: float) -> bool:
        assert end == until
        if not answers:
            raise ConnectionBroken("gone again")
        return False

    connector.connections[0].script = [OutcomeUnknown("reset", until, is_over)]
    assert session({"b": 1}, deadline)["b"] > 1
    assert time.monotonic() >= until


def test_nobody_hears_of_a_database_that_is_away_while_a_statement_may_arrive_there(
    connector: FakeConnector, session: Callable, deadline: float
) -> None:
    session({"a": 1}, deadline)
    until = time.monotonic() + 0.2
    connector.connections[0].script = [OutcomeUnknown("reset", until, lambda connection, end: True)]
    connector.down = DatabaseUnavailable("refused")
    with pytest.raises(DatabaseUnavailable, match="refused"):
        session({"b": 1}, deadline)
    assert time.monotonic() >= until


def test_a_repeated_statement_that_may_still_arrive_is_waited_for_as_well(
    connector: FakeConnector, session: Callable, deadline: float
) -> None:
    until = time.monotonic() + 0.2
    unknown = OutcomeUnknown("reset", until, lambda connection, end: False)
    connector.prepare = lambda connection: connection.script.append(unknown)
    with pytest.raises(OutcomeUnknown):
        session({"a": 1}, deadline)
    assert time.monotonic() >= until


@pytest.mark.parametrize(
    "failure",
    [
        DatabaseUnavailable("the statement did not finish in time"),
        RuntimeError("a defect"),
        gevent.Timeout(),
        gevent.GreenletExit(),
        KeyboardInterrupt(),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_connection_under_which_something_failed_is_never_used_again(
    connector: FakeConnector, session: Callable, deadline: float, failure: BaseException
) -> None:
    session({"a": 1}, deadline)
    connector.connections[0].script = [failure]
    with pytest.raises(type(failure)) as caught:
        session({"b": 1}, deadline)
    assert caught.value is failure
    assert connector.closed == [True]
    assert connector.attempts == 1, "the batch was repeated"
    assert session({"b": 1}, deadline) == {"b": 2}


def test_one_bad_value_does_not_fail_its_neighbours(
    connector: FakeConnector, session: Callable, deadline: float
) -> None:
    connector.prepare = lambda connection: connection.bad_keys.add("b")
    results = session({"a": 1, "b": 2, "c": 3}, deadline)
    assert isinstance(results.pop("b"), Rejected)
    assert results == {"a": 1, "c": 1}
    assert connector.connections[0].batches == [
        {"a": 1, "b": 2, "c": 3},
        {"a": 1},
        {"b": 2},
        {"c": 3},
    ]
    assert connector.closed == [False]


def test_a_bad_value_alone_is_rejected_and_the_connection_kept(
    connector: FakeConnector, session: Callable, deadline: float
) -> None:
    connector.prepare = lambda connection: connection.bad_keys.add("a")
    with pytest.raises(Rejected):
        session({"a": 1}, deadline)
    assert len(connector.connections[0].batches) == 1
    assert session({"b": 1}, deadline) == {"b": 1}
    assert connector.closed == [False]


def test_a_connection_that_breaks_during_the_split_is_replaced(
    connector: FakeConnector, session: Callable, deadline: float
) -> None:
    def prepare(connection: FakeConnection) -> None:
        connection.bad_keys.add("b")
        if connection.number == 1:
            connection.script = [Rejected("bad"), None, ConnectionBroken("gone")]

    connector.prepare = prepare
    results = session({"a": 1, "b": 2, "c": 3}, deadline)
    assert isinstance(results.pop("b"), Rejected)
    assert results == {"a": 1, "c": 2}
    assert connector.closed == [True, False]


def test_without_a_connection_the_batch_fails_and_the_next_tries_again(
    connector: FakeConnector, session: Callable, deadline: float
) -> None:
    connector.down = DatabaseUnavailable("refused")
    for attempts in (1, 2):
        with pytest.raises(DatabaseUnavailable, match="refused"):
            session({"a": 1}, deadline)
        assert connector.attempts == attempts
    connector.down = None
    assert session({"a": 1}, deadline) == {"a": 1}


def test_an_outdated_schema_fails_with_the_command_until_it_was_migrated(
    connector: FakeConnector, session: Callable, deadline: float
) -> None:
    connector.applied = schema.NAMES[:-1]
    with pytest.raises(SchemaOutdated) as caught:
        session({"a": 1}, deadline)
    assert str(caught.value) == (
        f"the schema lacks {schema.NAMES[-1]}: run python -m hello migrate"
    )
    assert connector.connections[0].batches == []
    assert connector.closed == [True]
    connector.applied = schema.NAMES
    assert session({"a": 1}, deadline) == {"a": 2}


def test_the_schema_of_a_newer_release_will_do(
    connector: FakeConnector, session: Callable, deadline: float
) -> None:
    connector.applied = [*schema.NAMES, "9999_of_a_later_release"]
    assert session({"a": 1}, deadline) == {"a": 1}


@pytest.mark.parametrize("failure", [DatabaseUnavailable("slow"), gevent.Timeout()])
def test_a_connection_whose_schema_cannot_be_read_is_closed(
    connector: FakeConnector, session: Callable, deadline: float, failure: BaseException
) -> None:
    connector.applied = failure
    with pytest.raises(type(failure)):
        session({"a": 1}, deadline)
    assert connector.closed == [True]


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    connector: FakeConnector, session: Callable, deadline: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hello")

    def run(times: int) -> None:
        for _ in range(times):
            try:
                session({"alice": "1990-05-17"}, deadline)
            except ServiceError:
                continue

    run(2)
    assert caplog.messages == []
    connector.connections[0].script = [DatabaseUnavailable("timed out")]
    connector.down = DatabaseUnavailable("connection refused")
    run(3)
    assert caplog.messages == ["the database does not answer: timed out"]
    connector.down = None
    run(2)
    assert caplog.messages[1:] == ["the database answers again"]
    connector.connections[-1].script = [ConnectionBroken("server closed the connection")]
    run(1)
    assert len(caplog.messages) == 2, "a batch that was repeated successfully is no outage"
    connector.connections[-1].script = [DatabaseUnavailable("timed out")]
    run(2)
    assert caplog.messages[2:] == [
        "the database does not answer: timed out",
        "the database answers again",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert "alice" not in caplog.text
    assert "1990" not in caplog.text


def test_a_rejected_value_is_no_outage(
    connector: FakeConnector, session: Callable, deadline: float, caplog: pytest.LogCaptureFixture
) -> None:
    connector.prepare = lambda connection: connection.bad_keys.add("a")
    for batch in ({"a": 1}, {"a": 1, "b": 1}):
        try:
            session(batch, deadline)
        except Rejected:
            continue
    assert caplog.messages == []


def test_figures_tell_what_happened(connector: FakeConnector, deadline: float) -> None:
    seconds = metrics.STATEMENT_SECONDS
    lane = Session(CurrentSchema(connector), "counted 2").save
    lane({"a": 1}, deadline)
    connector.connections[0].script = [ConnectionBroken("gone")]
    lane({"a": 1}, deadline)
    assert metrics.RETRIES.rows["counted",] == [1]
    # Statements that failed count as well; opening a connection is none.
    assert sum(seconds.rows["counted", "save"][:-1]) == 3
    assert sum(seconds.rows["counted", "connect"][:-1]) == 2
    [splits] = metrics.WRITE_SPLITS.row
    connector.prepare = lambda connection: None
    connector.connections[-1].bad_keys = {"b"}
    lane({"a": 1, "b": 1, "c": 1}, deadline)
    assert metrics.WRITE_SPLITS.row == [splits + 1]
    assert sum(seconds.rows["counted", "save"][:-1]) == 7
