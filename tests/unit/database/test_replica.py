"""Fenced reads over fake sessions, whose replica has replayed what the test says."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any

import gevent
import pytest

from hello.breaker import Breaker
from hello.database import replica as module
from hello.database.models import NO_SUCH_USER, Record
from hello.database.postgresql import Lineage, Position
from hello.database.replica import FencedReads, Primary, Replica
from hello.errors import ConnectionBroken, DatabaseUnavailable, Rejected, SchemaOutdated
from hello.telemetry import metrics
from tests.support.processes import eventually

LINEAGE = Lineage(7, 1)
OLD, NEW = Record(date(1990, 5, 17), 1), Record(date(1991, 6, 18), 2)


class FakeConnection:
    """A database: its rows, and the position that it has flushed or replayed."""

    def __init__(self, said: list[str], name: str, rows: dict[str, Record], lsn: int) -> None:
        self._said = said
        self._name = name
        self.rows = rows
        self.lsn = lsn
        self.lineage: Lineage | None = LINEAGE
        self.fail: Exception | None = None
        #: What happens just before it answers.
        self.before: Callable[[], None] = lambda: None

    def flushed(self, deadline: float) -> Position:
        self._say("flushed")
        return Position(self.lineage, self.lsn)

    def find(self, names: Iterable[str], deadline: float) -> dict[str, Record]:
        self._say("find")
        return {name: self.rows.get(name, NO_SUCH_USER) for name in names}

    def find_replayed(
        self, names: Iterable[str], deadline: float
    ) -> tuple[Position, dict[str, Record]]:
        self._say("find_replayed")
        found = {name: self.rows.get(name, NO_SUCH_USER) for name in names}
        return Position(self.lineage, self.lsn), found

    def _say(self, what: str) -> None:
        self._said.append(f"{self._name}: {what}")
        self.before()
        if self.fail:
            raise self.fail


class FakeSession:
    def __init__(self, connection: FakeConnection) -> None:
        self.connection = connection
        self.deadlines: list[float] = []
        self.asking = self.closed = False

    def call(
        self, operation: Callable[[FakeConnection], Any], deadline: float, statement: str
    ) -> Any:
        self.deadlines.append(deadline)
        self.asking = True
        try:
            return operation(self.connection)
        finally:
            self.asking = False

    def close(self) -> None:
        self.closed = True

    def give_back(self, keep: Callable[[FakeConnection], None]) -> None:
        keep(self.connection)

    def find(self, names: dict[str, Any], deadline: float) -> Mapping[str, Any]:
        return self.call(lambda c: c.find(names, deadline), deadline, "find")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Databases:
    """A primary and two replicas that have replayed everything, and a lane over them."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.clock = Clock()
        self.primary = FakeConnection(self.said, "primary", {"alice": NEW}, lsn=100)
        self.one = FakeConnection(self.said, "one", {"alice": NEW}, lsn=100)
        self.two = FakeConnection(self.said, "two", {"alice": NEW}, lsn=100)
        #: What asks a primary that was silent whether it answers.
        self.asker = FakeSession(self.primary)
        self.kept: list[FakeConnection] = []
        self.primary_state = Primary(self.asker, self.kept.append)
        self.breaker = Breaker(clock=self.clock)
        lane, one, two = map(FakeSession, (self.primary, self.one, self.two))
        self.sessions = [self.asker, lane, one, two]
        self.reads = FencedReads(
            lane,
            self.primary_state,
            [
                Replica("replica 1", one, self.breaker),
                Replica("replica 2", two, Breaker(clock=self.clock)),
            ],
        )

    def read(self, *names: str, within: float = 10) -> Mapping[str, Any]:
        return self.reads(dict.fromkeys(names or ("alice",)), time.monotonic() + within)

    def until(self) -> float:
        """The deadline of the question that is asked now."""
        return max(session.deadlines[-1] for session in self.sessions if session.asking)

    def asked(self, *names: str) -> list[str]:
        """What a read asks of whom, in order."""
        self.said.clear()
        self.read(*names)
        return list(self.said)


@pytest.fixture
def databases() -> Databases:
    return Databases()


COUNTERS = {
    "passed": metrics.FENCE_PASSED,
    "lagging": metrics.FENCE_LAGGING,
    "failed": metrics.FENCE_FAILED,
    "foreign": metrics.FENCE_FOREIGN,
    "unfenced": metrics.FENCE_UNFENCED,
    "polls": metrics.FENCE_POLLS,
    "primary reads": metrics.PRIMARY_READS,
}


@pytest.fixture(autouse=True)
def counted() -> Callable[[], dict[str, float]]:
    """What was counted since the test began."""
    before = {name: series.row[0] for name, series in COUNTERS.items()}

    def counted() -> dict[str, float]:
        since = {name: series.row[0] - before[name] for name, series in COUNTERS.items()}
        return {name: number for name, number in since.items() if number}

    return counted


FRESH = ["primary: flushed", "one: find_replayed"]


def test_the_fence_comes_before_the_rows(databases: Databases, counted: Any) -> None:
    assert databases.read() == {"alice": NEW}
    assert databases.said == FRESH
    assert counted() == {"passed": 1}


def test_one_question_and_one_statement_for_a_whole_batch(databases: Databases) -> None:
    names = [f"user-{n}" for n in range(200)]
    databases.one.rows = dict.fromkeys(names, NEW)
    assert databases.read(*names) == dict.fromkeys(names, NEW)
    assert databases.said == FRESH


def test_a_user_who_is_missing_on_a_fresh_replica_does_not_exist(databases: Databases) -> None:
    assert databases.read("bob") == {"bob": NO_SUCH_USER}
    assert databases.said == FRESH


def test_a_replica_exactly_at_the_fence_is_fresh(databases: Databases) -> None:
    databases.one.lsn = databases.primary.lsn
    assert databases.asked() == FRESH


def test_rows_are_taken_only_with_the_position_that_came_with_them() -> None:
    def took_the_third() -> bool:
        databases = Databases()
        databases.one.rows, databases.one.lsn = {"alice": OLD}, 99

        def catch_up() -> None:
            # What is written after the fence was asked for does not matter.
            databases.primary.lsn += 1000
            if databases.said.count("one: find_replayed") == 3:
                databases.one.rows, databases.one.lsn = {"alice": NEW}, 100

        databases.one.before = catch_up
        assert databases.read() == {"alice": NEW}
        return databases.said == ["primary: flushed", *["one: find_replayed"] * 3]

    # Patience is short, and a busy machine may spend it before the third answer.
    eventually(took_the_third)


def test_a_replica_that_lags_is_asked_again_for_a_while_and_then_the_primary(
    databases: Databases, counted: Any
) -> None:
    databases.one.rows, databases.one.lsn = {"alice": OLD}, 99
    start = time.monotonic()
    assert databases.read() == {"alice": NEW}
    assert time.monotonic() - start >= module.CATCH_UP
    asked = databases.said.count("one: find_replayed")
    assert databases.said == FRESH + ["one: find_replayed"] * (asked - 1) + ["primary: find"]
    assert counted() == {"polls": asked - 1, "lagging": 1, "primary reads": 1}


def test_a_replica_that_lags_is_left_alone_for_a_moment(databases: Databases) -> None:
    databases.one.lsn = 99
    databases.read()
    databases.clock.now += module.LAG_COOLDOWN * 0.99
    databases.one.lsn = 100
    assert databases.asked() == ["primary: flushed", "two: find_replayed"]
    databases.clock.now += module.LAG_COOLDOWN * 0.02
    assert databases.asked() == FRESH
    assert databases.asked() == FRESH


def test_a_replica_that_fails_is_left_alone_for_longer(databases: Databases, counted: Any) -> None:
    databases.one.fail = DatabaseUnavailable("away")
    assert databases.read() == {"alice": NEW}
    assert databases.said == [*FRESH, "primary: find"]
    assert counted() == {"failed": 1, "primary reads": 1}
    databases.one.fail = None
    databases.clock.now += 0.99
    assert databases.asked() == ["primary: flushed", "two: find_replayed"]
    databases.clock.now += 0.02
    assert databases.asked() == FRESH


def test_a_replica_that_was_promoted_is_not_read(databases: Databases) -> None:
    databases.one.fail = ConnectionBroken("it is no replica, or not any more")
    assert databases.asked() == [*FRESH, "primary: find"]


def test_without_a_healthy_replica_the_primary_is_read(databases: Databases) -> None:
    databases.one.fail = databases.two.fail = DatabaseUnavailable("away")
    databases.read()
    databases.read()
    assert databases.asked() == ["primary: flushed", "primary: find"]
    assert databases.read() == {"alice": NEW}


def test_the_breaker_is_shared_between_lanes(databases: Databases) -> None:
    databases.breaker.failed()
    assert databases.asked() == ["primary: flushed", "two: find_replayed"]
    databases.clock.now += 1
    assert databases.asked() == FRESH
    assert not databases.breaker.is_open


@pytest.mark.parametrize("lineage", [Lineage(8, 1), None])
def test_a_replica_of_another_primary_is_not_believed(
    databases: Databases, caplog: pytest.LogCaptureFixture, lineage: Lineage | None
) -> None:
    databases.one.lineage = lineage
    databases.one.rows, databases.one.lsn = {"alice": OLD}, 10**12
    assert databases.read() == {"alice": NEW}
    assert databases.said == [*FRESH, "primary: find"]
    assert caplog.messages == ["replica 1 does not follow this primary; it is not used"]
    databases.clock.now += 9.9
    assert databases.asked() == ["primary: flushed", "two: find_replayed"]
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("timeline", [0, 2])
def test_a_replica_of_another_timeline_is_asked_again_soon(
    databases: Databases, caplog: pytest.LogCaptureFixture, timeline: int
) -> None:
    databases.one.lineage = Lineage(7, timeline)
    databases.one.rows, databases.one.lsn = {"alice": OLD}, 10**12
    assert databases.read() == {"alice": NEW}
    assert databases.said == [*FRESH, "primary: find"]
    assert databases.asked() == ["primary: flushed", "two: find_replayed"]
    assert caplog.messages == []
    databases.one.lineage = LINEAGE
    databases.clock.now += 1
    assert databases.asked() == FRESH


def test_roles_that_may_not_read_the_system_identifier_are_served(databases: Databases) -> None:
    databases.primary.lineage = databases.one.lineage = None
    assert databases.asked() == FRESH


def test_while_the_primary_is_away_rows_of_the_replica_are_stale(
    databases: Databases, counted: Any
) -> None:
    databases.primary.fail = DatabaseUnavailable("away")
    databases.one.rows, databases.one.lsn = {"alice": OLD}, 1
    assert databases.read("alice", "bob") == {
        "alice": Record(OLD.date_of_birth, 1, stale=True),
        "bob": Record(None, 0, stale=True),
    }
    assert databases.said == FRESH
    assert counted() == {"unfenced": 1}


def test_while_the_primary_is_away_the_next_replica_answers_for_the_first(
    databases: Databases,
) -> None:
    databases.primary.fail = databases.one.fail = DatabaseUnavailable("away")
    assert databases.read()["alice"].stale
    assert databases.said == [*FRESH, "two: find_replayed"]


def test_a_primary_that_refuses_is_asked_by_every_read_and_fences_the_next(
    databases: Databases,
) -> None:
    # It costs nothing: nobody waits for a connection to it.
    databases.primary.fail = DatabaseUnavailable("refused")
    assert databases.read()["alice"].stale
    databases.primary.fail = None
    assert databases.asked() == FRESH
    assert not databases.read()["alice"].stale


def silent(databases: Databases) -> Callable[[], None]:
    """Says nothing until the time is up."""

    def wait() -> None:
        gevent.sleep(max(0.0, databases.until() - time.monotonic()))

    databases.primary.fail = DatabaseUnavailable("the statement did not finish in time")
    return wait


def test_readers_leave_a_silent_primary_alone_and_somebody_else_asks_until_it_answers(
    databases: Databases,
) -> None:
    databases.primary.before = silent(databases)
    start = time.monotonic()
    assert databases.read()["alice"].stale
    assert time.monotonic() - start < 10 / 2, "the replica has time to answer"
    assert databases.asked() == ["one: find_replayed"]
    assert not databases.breaker.is_open
    eventually(lambda: gevent.sleep(0.01) or databases.asker.deadlines)
    assert databases.asked() == ["one: find_replayed"]
    databases.primary.fail, databases.primary.before = None, lambda: None
    eventually(lambda: gevent.sleep(0.01) or not databases.primary_state.silent)
    assert databases.asked() == FRESH
    assert databases.kept == [databases.primary]


# Readers will hear of a schema that is outdated themselves.
@pytest.mark.parametrize("failure", [None, SchemaOutdated("the schema lacks 0002")])
def test_a_primary_that_was_silent_is_asked_by_one_until_it_says_something(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, failure: Exception | None
) -> None:
    monkeypatch.setattr(module, "ASK_INTERVAL", 0.01)
    databases.primary.fail = DatabaseUnavailable("away")
    for _ in range(3):
        databases.primary_state.fell_silent()
    eventually(lambda: gevent.sleep(0.01) or len(databases.said) > 2)
    assert databases.primary_state.silent
    assert databases.kept == []
    databases.primary.fail = failure
    eventually(lambda: gevent.sleep(0.01) or not databases.primary_state.silent)
    # Had several asked, each would have given its connection back.
    gevent.sleep(0.05)
    assert databases.kept == [databases.primary]


def test_little_time_says_nothing_about_a_primary_or_a_replica(databases: Databases) -> None:
    databases.primary.before = databases.one.before = silent(databases)
    databases.one.fail = databases.primary.fail
    databases.two.fail = DatabaseUnavailable("away")
    with pytest.raises(DatabaseUnavailable):
        databases.read(within=0.1)
    assert not databases.primary_state.silent
    assert not databases.breaker.is_open
    # A failure that came before the end is one all the same.
    databases.primary.before = databases.one.before = lambda: None
    with pytest.raises(DatabaseUnavailable):
        databases.read(within=0.1)
    assert databases.breaker.is_open


def test_a_silent_replica_leaves_time_to_the_next_while_the_primary_is_away(
    databases: Databases,
) -> None:
    databases.one.before = silent(databases)
    databases.one.fail = databases.primary.fail
    start = time.monotonic()
    assert databases.read()["alice"].stale
    assert databases.said == [*FRESH, "two: find_replayed"]
    assert time.monotonic() - start < 10 / 2
    assert databases.breaker.is_open


def test_an_outdated_schema_of_the_primary_is_no_reason_to_read_unfenced(
    databases: Databases,
) -> None:
    databases.primary.fail = SchemaOutdated("the schema lacks 0002")
    with pytest.raises(SchemaOutdated):
        databases.read()
    assert databases.said == ["primary: flushed"]


def test_with_everything_away_the_read_fails(databases: Databases) -> None:
    for connection in (databases.primary, databases.one, databases.two):
        connection.fail = DatabaseUnavailable(f"{connection} is away")
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            databases.read()


def test_without_a_replica_to_ask_a_primary_that_is_back_is_read_at_once(
    databases: Databases,
) -> None:
    for connection in (databases.primary, databases.one, databases.two):
        connection.fail = DatabaseUnavailable("away")
    with pytest.raises(DatabaseUnavailable):
        databases.read()
    databases.primary.fail = None
    assert databases.read() == {"alice": NEW}
    assert databases.asked() == [FRESH[0], "primary: find"]


def test_a_name_that_a_replica_refuses_does_not_fail_its_neighbours(databases: Databases) -> None:
    # The session of the primary splits such a batch.
    databases.one.fail = Rejected("the database cannot store this value")
    assert databases.read("alice", "Жанна") == {"alice": NEW, "Жанна": NO_SUCH_USER}
    assert databases.said[-1] == "primary: find"


def test_every_question_ends_by_the_deadline(databases: Databases) -> None:
    sessions = [FakeSession(databases.primary), FakeSession(databases.one)]
    reads = FencedReads(
        sessions[0],
        Primary(sessions[0], lambda connection: None),
        [Replica("replica 1", sessions[1], Breaker())],
    )
    databases.one.lsn = 99
    deadline = time.monotonic() + 10
    reads({"alice": None}, deadline)
    given = [at for session in sessions for at in session.deadlines]
    assert len(given) >= 3
    assert max(given) <= deadline


def test_a_replica_that_lags_is_nothing_to_tell_an_operator(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    databases.one.lsn = 99
    for _ in range(3):
        databases.read()
    assert caplog.messages == []
