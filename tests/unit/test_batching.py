"""Real greenlets in an unpatched process; the tests decide when a statement ends."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import gevent
import pytest
from gevent.event import AsyncResult
from hypothesis import given
from hypothesis import strategies as st

from hello import batching
from hello.batching import LEAST, Batcher
from hello.errors import DatabaseUnavailable, DeadlineExceeded, Overloaded, Rejected
from hello.telemetry import metrics
from tests.support.users import batcher_of

#: One sequence of events: requests and statements are numbered as they begin.
_numbers = itertools.count(1)


class Statement:
    """A statement in flight. Its result for a key is (its own number, the key's value)."""

    def __init__(self, batch: dict[str, Any], deadline: float) -> None:
        self.number = next(_numbers)
        self.batch = dict(batch)
        self.deadline = deadline
        self.greenlet = gevent.getcurrent()
        self.end = AsyncResult()

    def answer(self, **results: Any) -> None:
        """End with the usual results, but for those given."""
        usual = {key: (self.number, value) for key, value in self.batch.items()}
        self.end.set(usual | results)

    def fail(self, ex: BaseException) -> None:
        self.end.set_exception(ex)


class Database:
    """`lane` runs statements, each until it is told to end or reaches its deadline."""

    def __init__(self) -> None:
        self.statements: list[Statement] = []
        self.running: list[Statement] = []

    def lane(self, batch: dict[str, Any], deadline: float) -> dict[str, Any]:
        statement = Statement(batch, deadline)
        self.statements.append(statement)
        self.running.append(statement)
        try:
            with gevent.Timeout(deadline - time.monotonic(), DatabaseUnavailable("too slow")):
                return statement.end.get()
        finally:
            self.running.remove(statement)

    def answer(self) -> None:
        """Let the statements run until nothing is left to run."""
        while self.running:
            for statement in self.running:
                statement.answer()
            gevent.idle()

    @property
    def batches(self) -> list[list[str]]:
        return [list(statement.batch) for statement in self.statements]


class Request:
    """A greenlet that submits; `outcome` is its result, or the exception it got."""

    def __init__(
        self,
        submit: Callable[[str, Any, float | None], Any],
        key: str,
        value: Any = None,
        timeout: float | None = None,
    ) -> None:
        self.key = key
        self.value = value
        self.number = 0
        self.outcome: Any = None
        self.greenlet = gevent.spawn(self._run, submit, timeout)

    def _run(self, submit: Callable[[str, Any, float | None], Any], timeout: float | None) -> None:
        self.number = next(_numbers)
        try:
            self.outcome = submit(self.key, self.value, timeout)
            assert not isinstance(self.outcome, Exception), "returned instead of raised"
        except (Exception, gevent.Timeout, gevent.GreenletExit) as ex:
            self.outcome = ex

    @property
    def done(self) -> bool:
        return self.greenlet.dead

    def wait(self) -> Any:
        self.greenlet.join()
        return self.outcome


@pytest.fixture(autouse=True)
def _hang_is_failure() -> Iterator[None]:
    with gevent.Timeout(30):
        yield


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def batcher(database: Database) -> Batcher:
    return batcher_of([database.lane], timeout=10)


def ask(batcher: Batcher, *keys: str, **options: Any) -> list[Request]:
    """One request for each key, in this order; returns when all have submitted."""
    requests = [Request(batcher.submit, key, **options) for key in keys]
    gevent.idle()
    return requests


def assert_healthy(batcher: Batcher, database: Database) -> None:
    """Nobody waits, and new requests are answered."""
    assert not database.running
    for key in ("healthy", "again"):
        (request,) = ask(batcher, key, value=1)
        assert database.statements[-1].batch == {key: 1}
        database.answer()
        assert request.wait() == (database.statements[-1].number, 1)


def test_alone_runs_in_the_callers_own_greenlet(batcher: Batcher, database: Database) -> None:
    for key in "abc":
        (request,) = ask(batcher, key)
        assert database.statements[-1].greenlet is request.greenlet
        database.answer()
        assert request.wait() == (database.statements[-1].number, None)
    assert database.batches == [["a"], ["b"], ["c"]]


def test_alone_again_after_a_batch(batcher: Batcher, database: Database) -> None:
    ask(batcher, "a", "b", "c")
    database.answer()
    ask(batcher, "d")
    database.answer()
    (request,) = ask(batcher, "e")
    assert database.statements[-1].greenlet is request.greenlet
    database.answer()


def test_requests_that_arrive_during_a_statement_share_the_next(
    batcher: Batcher, database: Database
) -> None:
    requests = ask(batcher, "a", "b", "c", "d")
    assert database.batches == [["a"]]
    database.running[0].answer()
    gevent.idle()
    assert database.batches == [["a"], ["b", "c", "d"]]
    late = ask(batcher, "e", "f")
    database.answer()
    assert database.batches == [["a"], ["b", "c", "d"], ["e", "f"]]
    first, second, third = (statement.number for statement in database.statements)
    assert [request.wait()[0] for request in requests] == [first, second, second, second]
    assert [request.wait()[0] for request in late] == [third, third]


def test_nobody_is_answered_before_the_statement_has_ended(
    batcher: Batcher, database: Database
) -> None:
    requests = ask(batcher, "a", "b", "c")
    assert not any(request.done for request in requests)
    database.running[0].answer()
    gevent.idle()
    assert [request.done for request in requests] == [True, False, False]
    database.running[0].answer()
    gevent.idle()
    assert all(request.done for request in requests)


def test_equal_keys_share_a_row_and_the_later_value_wins(
    batcher: Batcher, database: Database
) -> None:
    requests = [Request(batcher.submit, key, value) for value, key in enumerate("abcbb")]
    gevent.idle()
    database.answer()
    first, second = database.statements
    assert (first.batch, second.batch) == ({"a": 0}, {"b": 4, "c": 2})
    assert [request.wait() for request in requests] == [
        (first.number, 0),
        (second.number, 4),
        (second.number, 2),
        (second.number, 4),
        (second.number, 4),
    ]


def test_a_key_in_flight_is_not_shared_with_later_requests(
    batcher: Batcher, database: Database
) -> None:
    # Whoever begins to read after a write was answered must not see what was read before.
    ask(batcher, "a", "a")
    assert len(database.running) == 1
    database.answer()
    assert database.batches == [["a"], ["a"]]


def test_a_key_without_a_result_gets_none(batcher: Batcher, database: Database) -> None:
    requests = ask(batcher, "a", "b", "c")
    database.running[0].end.set({})
    gevent.idle()
    database.running[0].end.set({"c": "found"})
    assert [request.wait() for request in requests] == [None, None, "found"]


def test_a_batch_is_bounded_and_takes_the_oldest_first(database: Database) -> None:
    batcher = batcher_of([database.lane], max_batch=2)
    requests = ask(batcher, *"abcdef")
    database.answer()
    assert database.batches == [["a"], ["b", "c"], ["d", "e"], ["f"]]
    assert all(request.wait() for request in requests)


def test_too_many_waiting_are_refused_at_once(database: Database) -> None:
    batcher = batcher_of([database.lane], max_waiting=3)
    # One in flight, three that wait for the next statement, two of them for one key.
    requests = ask(batcher, "a", "b", "b", "c")
    (refused,) = ask(batcher, "d")
    assert isinstance(refused.outcome, Overloaded)
    assert not any(request.done for request in requests)
    database.answer()
    assert database.batches == [["a"], ["b", "c"]]
    assert all(request.wait() for request in requests)
    assert_healthy(batcher, database)


def test_who_gave_up_makes_room(database: Database) -> None:
    batcher = batcher_of([database.lane], max_waiting=1)
    _, waiting = ask(batcher, "a", "b")
    waiting.greenlet.kill()
    (request,) = ask(batcher, "c")
    assert not request.done
    database.answer()
    assert database.batches == [["a"], ["c"]]


def test_a_statement_ends_before_anybody_gives_up_who_rides_in_it(database: Database) -> None:
    batcher = batcher_of([database.lane], timeout=100, max_batch=3)
    before = time.monotonic()
    ask(batcher, "a", "b", timeout=50)
    ask(batcher, "b", "c", timeout=40)
    ask(batcher, "d", "e")
    after = time.monotonic()
    database.answer()
    assert database.batches == [["a"], ["b", "c", "d"], ["e"]]
    for statement, timeout in zip(database.statements, (50, 40, 100), strict=True):
        assert before + timeout <= statement.deadline <= after + timeout


def test_who_gave_up_does_not_shorten_the_time_of_others(database: Database) -> None:
    batcher = batcher_of([database.lane], timeout=100)
    ask(batcher, "a")
    (impatient,) = ask(batcher, "b", timeout=0.01)
    ask(batcher, "b", "c", timeout=50)
    impatient.wait()
    before = time.monotonic()
    database.answer()
    assert database.batches == [["a"], ["b", "c"]]
    assert database.statements[1].deadline > before + 40


def test_who_has_no_time_left_for_a_statement_is_not_in_it(database: Database) -> None:
    batcher = batcher_of([database.lane], timeout=100)
    (first,) = ask(batcher, "a")
    late = ask(batcher, "b", "c", timeout=LEAST * 0.9)
    patient = ask(batcher, "c", "d", value=1)
    assert not any(request.done for request in late)
    database.answer()
    assert database.batches == [["a"], ["c", "d"]]
    assert database.statements[1].deadline > time.monotonic() + 90
    assert first.wait()
    for request in late:
        assert isinstance(request.wait(), DeadlineExceeded)
    number = database.statements[1].number
    assert [request.wait() for request in patient] == [(number, 1)] * 2
    assert_healthy(batcher, database)


def test_nothing_is_run_for_those_who_have_no_time_left(database: Database) -> None:
    batcher = batcher_of([database.lane], timeout=100)
    _, *late = ask(batcher, "a"), *ask(batcher, "b", "b", timeout=LEAST * 0.9)
    database.answer()
    assert database.batches == [["a"]]
    assert all(isinstance(request.wait(), DeadlineExceeded) for request in late)
    assert_healthy(batcher, database)


def test_a_request_that_waits_too_long_gets_deadline_exceeded(
    batcher: Batcher, database: Database
) -> None:
    first, waiting, patient = ask(batcher, "a", "b", "c")
    (impatient,) = ask(batcher, "b", timeout=0.01)
    assert isinstance(impatient.wait(), DeadlineExceeded)
    assert not any(request.done for request in (first, waiting, patient))
    database.answer()
    assert database.batches == [["a"], ["b", "c"]]
    assert all(request.wait()[0] for request in (first, waiting, patient))
    assert_healthy(batcher, database)


def test_a_request_in_flight_gets_deadline_exceeded_while_its_batch_goes_on(
    batcher: Batcher, database: Database
) -> None:
    ask(batcher, "a")
    (impatient,) = ask(batcher, "b", timeout=0.05)
    (patient,) = ask(batcher, "b")
    database.running[0].answer()
    gevent.idle()
    assert isinstance(impatient.wait(), DeadlineExceeded)
    assert not patient.done
    database.answer()
    assert patient.wait() == (database.statements[-1].number, None)
    assert_healthy(batcher, database)


def test_every_wait_ends_when_the_database_never_answers() -> None:
    answers = False

    def lane(batch: dict[str, int], deadline: float) -> dict[str, int]:
        if answers:
            return batch
        gevent.sleep(max(0, deadline - time.monotonic()))
        raise DatabaseUnavailable("too slow")

    batcher: Batcher[int, int] = batcher_of([lane], timeout=0.05)
    alone, *waiting = ask(batcher, *"abcd")
    assert isinstance(alone.wait(), DatabaseUnavailable)
    assert all(isinstance(request.wait(), DeadlineExceeded) for request in waiting)
    answers = True
    assert batcher.submit("e", 1, 10) == 1


def kill(request: Request) -> None:
    request.greenlet.kill()


def time_out(request: Request) -> None:
    request.greenlet.kill(gevent.Timeout())


@pytest.mark.parametrize("leave", [kill, time_out])
def test_who_leaves_while_waiting_is_not_run(
    batcher: Batcher, database: Database, leave: Callable[[Request], None]
) -> None:
    first, leaving, neighbour = ask(batcher, "a", "b", "c")
    leave(leaving)
    database.answer()
    assert database.batches == [["a"], ["c"]]
    assert first.wait()
    assert neighbour.wait()
    assert_healthy(batcher, database)


@pytest.mark.parametrize("leave", [kill, time_out])
def test_who_leaves_does_not_take_others_for_the_same_key_along(
    batcher: Batcher, database: Database, leave: Callable[[Request], None]
) -> None:
    _, leaving, neighbour = ask(batcher, "a", "b", "b")
    leave(leaving)
    database.answer()
    assert database.batches == [["a"], ["b"]]
    assert neighbour.wait() == (database.statements[-1].number, None)
    assert_healthy(batcher, database)


@pytest.mark.parametrize("leave", [kill, time_out])
def test_who_leaves_while_in_flight_leaves_the_batch_alone(
    batcher: Batcher, database: Database, leave: Callable[[Request], None]
) -> None:
    _, leaving, neighbour = ask(batcher, "a", "b", "c")
    database.running[0].answer()
    gevent.idle()
    leave(leaving)
    assert len(database.running) == 1
    database.answer()
    assert database.batches == [["a"], ["b", "c"]]
    assert neighbour.wait() == (database.statements[-1].number, None)
    assert_healthy(batcher, database)


@pytest.mark.parametrize("leave", [kill, time_out])
def test_who_leaves_while_running_alone_hands_the_lane_on(
    batcher: Batcher, database: Database, leave: Callable[[Request], None]
) -> None:
    leaving, *waiting = ask(batcher, "a", "b", "c")
    leave(leaving)
    gevent.idle()
    assert [list(statement.batch) for statement in database.running] == [["b", "c"]]
    database.answer()
    assert all(request.wait() for request in waiting)
    assert_healthy(batcher, database)


def test_a_timeout_around_submit_is_raised_to_its_owner(
    batcher: Batcher, database: Database
) -> None:
    ask(batcher, "a")
    with gevent.Timeout(0.01) as timeout, pytest.raises(gevent.Timeout) as caught:
        batcher.submit("b", None)
    assert caught.value is timeout
    database.answer()
    assert database.batches == [["a"]]
    assert_healthy(batcher, database)


def test_a_failing_statement_fails_its_batch_only(batcher: Batcher, database: Database) -> None:
    alone, *batch = ask(batcher, "a", "b", "c")
    first, second = DatabaseUnavailable("first"), DatabaseUnavailable("second")
    database.running[0].fail(first)
    gevent.idle()
    late = ask(batcher, "d", "e")
    database.running[0].fail(second)
    gevent.idle()
    database.answer()
    assert alone.wait() is first
    assert [request.wait() for request in batch] == [second, second]
    third = database.statements[-1].number
    assert [request.wait() for request in late] == [(third, None), (third, None)]
    assert_healthy(batcher, database)


def test_a_result_that_is_an_exception_goes_to_its_key_alone(
    batcher: Batcher, database: Database
) -> None:
    alone, *batch = ask(batcher, "a", "b", "c", "b")
    bad, worse = Rejected("bad"), Rejected("worse")
    database.running[0].answer(a=bad)
    gevent.idle()
    database.running[0].answer(b=worse)
    assert alone.wait() is bad
    assert [request.wait() for request in batch] == [
        worse,
        (database.statements[-1].number, None),
        worse,
    ]
    assert_healthy(batcher, database)


def test_one_lane_serves_while_statements_are_quick(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "SLOW", 1000)
    batcher = batcher_of([database.lane] * 2)
    requests = ask(batcher, "a", "b", "c")
    assert database.batches == [["a"]]
    database.running[0].answer()
    gevent.idle()
    requests += ask(batcher, "d")
    assert database.batches == [["a"], ["b", "c"]]
    database.answer()
    assert database.batches == [["a"], ["b", "c"], ["d"]]
    assert all(request.wait() for request in requests)


def test_another_lane_begins_beside_a_slow_statement(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "SLOW", 0.3)
    batcher = batcher_of([database.lane] * 2)
    slow, *others = ask(batcher, "a", "b", "c")
    # Nobody else comes: a tick sees that the statement is slow.
    while len(database.running) < 2:
        gevent.sleep(0.001)
    assert database.batches == [["a"], ["b", "c"]]
    # The other lane serves, and is enough while its own statements are quick.
    late = ask(batcher, "d", "e")
    database.running[1].answer()
    gevent.idle()
    assert database.batches == [["a"], ["b", "c"], ["d", "e"]]
    assert all(request.done for request in others)
    # The one that was slow leaves those who wait to the other.
    last = ask(batcher, "f")
    database.running[0].answer()
    gevent.idle()
    assert slow.done
    assert database.batches == [["a"], ["b", "c"], ["d", "e"]]
    database.answer()
    assert all(request.wait() for request in late + last)
    assert_healthy(batcher, database)


def test_whoever_comes_while_a_statement_is_slow_does_not_wait_for_a_tick(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "TICK", 1000)
    batcher = batcher_of([database.lane] * 2)
    ask(batcher, "a")
    time.sleep(2 * batching.SLOW)
    ask(batcher, "b")
    assert database.batches == [["a"], ["b"]]
    database.answer()


def test_a_burst_begins_one_lane(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "SLOW", 1000)
    batcher = batcher_of([database.lane] * 3)
    ask(batcher, "a", "b")
    database.answer()
    requests = ask(batcher, "a", "b", "c")
    assert len(database.running) == 1
    database.answer()
    assert all(request.wait() for request in requests)


def test_under_load_many_requests_share_a_statement() -> None:
    statements = 0

    def lane(batch: dict[str, int], deadline: float) -> dict[str, int]:
        nonlocal statements
        statements += 1
        gevent.sleep(0.001)
        return batch

    batcher: Batcher[int, int] = batcher_of([lane])

    def client(number: int) -> None:
        for value in range(20):
            assert batcher.submit(str(number), value) == value

    clients = [gevent.spawn(client, number) for number in range(32)]
    gevent.joinall(clients, raise_error=True)
    assert statements < 32 * 20 / 8


KEYS = "abcd"
steps = st.one_of(
    st.tuples(st.just("submit"), st.lists(st.sampled_from(KEYS), min_size=1, max_size=5)),
    st.tuples(st.sampled_from(["kill", "answer", "fail", "reject"]), st.integers(0, 9)),
    # Without it, the events before and after happen in the same turn of the event loop.
    st.just(("settle", None)),
)


@given(
    st.lists(steps, max_size=40),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 6),
    st.booleans(),
)
def test_in_any_schedule_nobody_is_lost_or_gets_the_result_of_another(
    schedule: list[tuple[str, Any]], lanes: int, max_batch: int, max_waiting: int, slow: bool
) -> None:
    # All statements are slow at once, so that all lanes run, or as slow as they are.
    with patch.object(batching, "SLOW", 0.0 if slow else 1000.0):
        run_schedule(schedule, lanes if slow else 1, lanes, max_batch, max_waiting)


def run_schedule(
    schedule: list[tuple[str, Any]],
    least_running: int,
    lanes: int,
    max_batch: int,
    max_waiting: int,
) -> None:
    database = Database()
    batcher = batcher_of([database.lane] * lanes, max_batch=max_batch, max_waiting=max_waiting)
    requests: list[Request] = []

    def submit(key: str, value: int, timeout: float | None) -> Any:
        try:
            return batcher.submit(key, value, timeout)
        except Overloaded:
            assert len(waiting()) - 1 == max_waiting, "refused although there was room"
            raise

    def rode_in(request: Request) -> dict[int, Statement]:
        """The statements that may answer the request: none that began before it."""
        return {
            statement.number: statement
            for statement in database.statements
            if request.key in statement.batch and statement.number > request.number
        }

    def waiting() -> list[Request]:
        return [r for r in requests if r.number and not r.done and not rode_in(r)]

    def check() -> None:
        assert len(waiting()) <= max_waiting
        assert len(database.running) >= least_running or not waiting(), "a lane is idle"
        assert all(len(statement.batch) <= max_batch for statement in database.statements)
        for request in requests:
            check_outcome(request, request.outcome)

    def check_outcome(request: Request, outcome: Any) -> None:
        if isinstance(outcome, tuple):
            number, value = outcome
            assert value == rode_in(request)[number].batch[request.key]
            assert value >= request.value, "an earlier value won over a later one"
        elif isinstance(outcome, DatabaseUnavailable):
            assert outcome.args[0] in rode_in(request)
        elif isinstance(outcome, Rejected):
            assert outcome.args[0] in rode_in(request)
            assert outcome.args[1] == request.key
        else:
            assert outcome is None or isinstance(outcome, Overloaded | gevent.GreenletExit)

    for action, argument in schedule:
        unfinished = [statement for statement in database.running if not statement.end.ready()]
        if action == "submit":
            requests += [Request(submit, key, next(_numbers)) for key in argument]
        elif action == "settle":
            gevent.idle()
            check()
        elif action == "kill" and requests:
            requests[argument % len(requests)].greenlet.kill(block=False)
        elif action != "kill" and unfinished:
            statement = unfinished[argument % len(unfinished)]
            if action == "answer":
                statement.answer()
            elif action == "fail":
                statement.fail(DatabaseUnavailable(statement.number))
            else:
                key = min(statement.batch)
                statement.answer(**{key: Rejected(statement.number, key)})

    gevent.idle()
    check()
    database.answer()
    check()
    assert all(request.done for request in requests)
    assert all(request.outcome is not None for request in requests if request.number)
    assert_healthy(batcher, database)


def test_figures_tell_what_happened(database: Database) -> None:
    batcher: Batcher[Any, Any] = batcher_of([database.lane], kind="counted", max_waiting=3)

    def waiting() -> float:
        metrics.WAITING.refresh(0)
        return metrics.WAITING.rows["counted",][0]

    requests = ask(batcher, "a", "b", "b")
    (impatient,) = ask(batcher, "c", timeout=0.01)
    assert waiting() == 3
    ask(batcher, "d")
    assert metrics.SHED.rows["counted",] == [1]
    impatient.wait()
    assert metrics.DEADLINES.rows["counted",] == [1]
    assert waiting() == 2
    database.answer()
    assert all(request.wait() for request in requests)
    assert waiting() == 0
    ask(batcher, "e", "f", "g")
    database.answer()
    # a, b, e alone; f and g together.
    assert database.batches == [["a"], ["b"], ["e"], ["f", "g"]]
    assert metrics.BATCH_SIZE.rows["counted",] == [3, 1, *[0] * 8, 5]
