"""A guarded route over a fake one, whose attempts go as the test says."""

import time
from collections.abc import Callable

import gevent
import pytest
from gevent.event import Event

from hello.database import guard as module
from hello.database.guard import Guard
from hello.errors import DatabaseUnavailable, Misconfigured, SchemaOutdated


class Connection:
    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = False

    def close(self) -> None:
        self.closed = True


class FakeRoute:
    """Connects when it may, unless `down` says why not."""

    def __init__(self) -> None:
        self.open = Event()
        self.open.set()
        self.down: Exception | None = None
        self.at_once = self.peak = 0
        self.attempts: list[float] = []
        self.connections: list[Connection] = []

    def connect(self, deadline: float) -> Connection:
        self.attempts.append(time.monotonic())
        self.at_once += 1
        self.peak = max(self.peak, self.at_once)
        try:
            self.open.wait()
            if self.down:
                raise self.down
        finally:
            self.at_once -= 1
        self.connections.append(Connection(len(self.connections) + 1))
        return self.connections[-1]


@pytest.fixture
def route() -> FakeRoute:
    return FakeRoute()


@pytest.fixture
def guard(route: FakeRoute) -> Guard:
    return Guard(route)


def soon(condition: Callable[[], object]) -> None:
    """Let other greenlets run until it is so."""
    with gevent.Timeout(10):
        while not condition():
            gevent.sleep(0.01)


def fails(guard: Guard, within: float = 10) -> DatabaseUnavailable:
    with pytest.raises(DatabaseUnavailable) as caught:
        guard.connect(time.monotonic() + within)
    return caught.value


def test_everybody_gets_a_connection_and_they_are_opened_one_at_a_time(
    route: FakeRoute, guard: Guard, deadline: float
) -> None:
    asking = [gevent.spawn(guard.connect, deadline) for _ in range(5)]
    gevent.joinall(asking)
    assert {greenlet.value for greenlet in asking} == set(route.connections)
    assert (len(route.attempts), route.peak) == (5, 1)


def test_those_who_wait_for_an_attempt_that_fails_hear_why_and_nobody_tries_again_at_once(
    route: FakeRoute, guard: Guard, deadline: float
) -> None:
    route.down = DatabaseUnavailable("refused")
    route.open.clear()
    asking = [gevent.spawn(fails, guard) for _ in range(5)]
    soon(lambda: route.attempts)
    route.open.set()
    gevent.joinall(asking)
    assert [str(greenlet.value) for greenlet in asking] == ["refused"] * 5
    assert guard.failing
    start = time.monotonic()
    for _ in range(1_000):
        assert str(fails(guard)) == "refused"
    assert len(route.attempts) <= 1 + (time.monotonic() - start) / module.PAUSE[0]


def test_it_goes_on_trying_by_itself_until_the_database_is_back(
    route: FakeRoute, guard: Guard, deadline: float
) -> None:
    route.down = DatabaseUnavailable("refused")
    fails(guard)
    soon(lambda: len(route.attempts) == 3)
    pauses = [b - a for a, b in zip(route.attempts, route.attempts[1:], strict=False)]
    assert min(pauses) >= module.PAUSE[0]
    route.down = None
    soon(lambda: not guard.failing)
    # What it opened is for the next who asks.
    assert guard.connect(deadline).number == 1
    assert guard.connect(deadline).number == 2
    assert len(route.attempts) == 5


def test_an_attempt_goes_on_though_nobody_can_wait_for_it(
    route: FakeRoute, guard: Guard, deadline: float
) -> None:
    route.open.clear()
    assert "did not accept a connection in time" in str(fails(guard, within=0.05))
    assert not guard.failing
    route.open.set()
    soon(lambda: route.connections)
    assert guard.connect(deadline).number == 1
    assert len(route.attempts) == 1


def test_a_connection_for_somebody_who_was_killed_goes_to_the_next(
    route: FakeRoute, guard: Guard, deadline: float
) -> None:
    route.open.clear()
    killed, other = (gevent.spawn(guard.connect, deadline) for _ in range(2))
    soon(lambda: route.attempts)
    killed.kill()
    route.open.set()
    assert other.get().number == 1


def test_a_connection_that_reaches_somebody_who_is_killed_is_for_the_next(
    route: FakeRoute, guard: Guard, deadline: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = route.connect

    def kill_meanwhile(deadline: float) -> Connection:
        connection = connect(deadline)
        # It is killed once it was given the connection, and before it can take it.
        killed.kill(block=False)
        return connection

    monkeypatch.setattr(route, "connect", kill_meanwhile)
    killed = gevent.spawn(guard.connect, deadline)
    soon(killed.ready)
    assert isinstance(killed.value, gevent.GreenletExit)
    assert guard.connect(deadline).number == 1
    assert len(route.attempts) == 1


def test_a_connection_that_nobody_asks_for_is_closed_after_a_while(
    route: FakeRoute, guard: Guard, deadline: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPARE_TERM", 0.05)
    wanted, spare, more = (Connection(number) for number in range(3))
    guard.keep(wanted)
    assert guard.connect(deadline) is wanted
    guard.keep(spare)
    guard.keep(more)
    assert (spare.closed, more.closed) == (False, True)
    soon(lambda: spare.closed)
    assert not wanted.closed
    assert guard.connect(deadline).number == 1


@pytest.mark.parametrize("kind", [SchemaOutdated, DatabaseUnavailable])
def test_the_reason_is_the_same_for_all(
    route: FakeRoute, guard: Guard, kind: type[DatabaseUnavailable]
) -> None:
    route.down = kind("why")
    for _ in range(2):
        failure = fails(guard)
        assert (type(failure), str(failure)) == (kind, "why")


def test_a_setting_that_is_wrong_is_read_again_at_once(
    route: FakeRoute, guard: Guard, deadline: float
) -> None:
    # No database was asked, so there is none to be spared.
    route.down = Misconfigured("DB_URI: not a URI")
    fails(guard)
    route.down = None
    assert guard.connect(deadline).number == 1


def test_a_defect_reaches_who_waits(route: FakeRoute, guard: Guard, deadline: float) -> None:
    route.down = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        guard.connect(deadline)
    route.down = None
    assert guard.connect(deadline).number == 1


def test_a_connection_that_nobody_asks_for_is_closed(
    route: FakeRoute, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPARE_TERM", 0.01)
    route.open.clear()
    fails(guard, within=0.05)
    route.open.set()
    soon(lambda: route.connections and route.connections[0].closed)


def test_one_connection_is_kept_for_later_and_no_second_one(guard: Guard, deadline: float) -> None:
    first, second = guard.connect(deadline), guard.connect(deadline)
    guard.keep(first)
    guard.keep(second)
    assert (first.closed, second.closed) == (False, True)
    assert guard.connect(deadline) is first
