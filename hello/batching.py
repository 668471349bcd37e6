"""Natural batching: requests that arrive while a statement is in flight share the next one.

A lane runs one statement at a time. A request puts its key into the waiting set and
sleeps; a lane that is free takes everything that waits, runs one statement for all of
it, and wakes each waiter with its own result. There is no delay: a request that is alone
runs at once, in its own greenlet, and batches grow only as the database becomes the
bottleneck.

One lane serves: two at a time would halve the batches. Another, if there is one, begins
beside it only when the statement in flight is slow: it hangs, or the database is far away.
"""

import time
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any, Generic, Protocol, TypeVar

import gevent
from gevent import get_hub
from gevent.hub import Waiter

from hello.errors import DeadlineExceeded, Overloaded
from hello.telemetry import metrics

Value = TypeVar("Value")
Result = TypeVar("Result")
ResultOut = TypeVar("ResultOut", covariant=True)


#: Seconds that a request must have left when a statement begins, or a quarter of its whole time if
#: that is less. A request with less is refused: all that share the statement would end with it.
LEAST = 0.25

#: Seconds after which a statement is slow: it hangs, or the database is far away. In a worker that
#: is busy statements last as long too, but their batches are so large then that halves cost little.
SLOW = 0.002
#: Seconds between two looks for a slow statement while anybody waits.
TICK = 0.002
#: Seconds between two looks at the deadlines of those who wait: they may wait so much longer.
SWEEP = 0.05


class Lane(Protocol[Value, ResultOut]):
    """Runs one statement at a time."""

    def __call__(
        self, batch: dict[str, Value], deadline: float, /
    ) -> Mapping[str, ResultOut | Exception]:
        """Run a statement for {key: value}, ending by `deadline` (time.monotonic()).

        No waiter gives up before `deadline`; so the lane must change nothing after it.
        A key without a result gets None. A result that is an exception is raised for
        its key alone; an exception that the lane raises is raised for every key.
        """


class _Runner(Generic[Value, Result]):
    """A lane, and when it was taken to run a statement (time.monotonic())."""

    __slots__ = ("began", "lane")

    def __init__(self, lane: Lane[Value, Result]) -> None:
        self.lane = lane
        self.began = 0.0


class _Lanes(Generic[Value, Result]):
    """The lanes of a batcher, and when one of them may begin."""

    def __init__(self, lanes: Sequence[Lane[Value, Result]]) -> None:
        # The one that ran last begins next: its connection is open and warm.
        self._idle = [_Runner(lane) for lane in lanes]
        #: Those that run, the last to begin at the end.
        self._running: list[_Runner[Value, Result]] = []

    def take(self, now: float) -> _Runner[Value, Result] | None:
        """An idle lane, if no other runs, or only such with slow statements; else None."""
        if not self._idle or (self._running and now - self._running[-1].began < SLOW):
            return None
        runner = self._idle.pop()
        runner.began = now
        self._running.append(runner)
        return runner

    def give_back(self, runner: _Runner[Value, Result]) -> None:
        self._running.remove(runner)
        self._idle.append(runner)


class _Entry(Generic[Value]):
    """A key that waits, its value, and everybody who waits for it."""

    __slots__ = ("value", "waiters")

    def __init__(self, value: Value) -> None:
        self.value = value
        self.waiters: list[Waiter] = []


class Batcher(Generic[Value, Result]):
    """Shares statements between greenlets of one hub.

    `lanes` run concurrently only while statements are slow; `kind` is their label in metrics.
    `max_batch` bounds the keys of one statement, `max_waiting` the requests that wait for one.
    `timeout`, in seconds, bounds the time from `submit` to its answer, to within SWEEP. A batch
    has the earliest deadline of its waiters.
    """

    def __init__(
        self,
        lanes: Sequence[Lane[Value, Result]],
        *,
        kind: str = "read",
        max_batch: int = 256,
        max_waiting: int,
        timeout: float,
    ) -> None:
        self._lanes = _Lanes(lanes)
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._timeout = timeout
        self._least = min(LEAST, timeout / 4)
        self._waiting: dict[str, _Entry[Value]] = {}
        self._waiters = 0
        #: The deadlines of all who wait, for a statement to begin or to end (time.monotonic()).
        self._deadlines: dict[Waiter, float] = {}
        #: Calls `_tick` while anybody waits. A timer for each request would cost it 2 µs.
        self._ticker: Any = None
        self._next_sweep = 0.0
        # Keys of the last statement: 1 means that requests come one by one.
        self._last = 1
        self._sizes = metrics.BATCH_SIZE.labels(kind)
        self._shed = metrics.SHED.labels(kind)
        self._exceeded = metrics.DEADLINES.labels(kind)
        metrics.WAITING.labels(kind).watch(lambda: self._waiters)

    def submit(self, key: str, value: Value, timeout: float | None = None) -> Result | None:
        """Wait for a statement that has `key`, and return its result for that key.

        If several requests submit the same key for the same statement, the last
        value that is not None is used and all get its result.

        Raises Overloaded at once if too many wait, DeadlineExceeded when the time is
        up, and whatever the lane raises. A caller that leaves early, killed or timed
        out, leaves the others alone.
        """
        if self._waiters >= self._max_waiting:
            self._shed.inc()
            raise Overloaded("too many requests are waiting for the database")
        now = time.monotonic()
        deadline = now + (self._timeout if timeout is None else timeout)
        runner = self._lanes.take(now)
        if runner is not None and self._last == 1 and not self._waiting:
            return self._run_alone(runner, key, value, deadline)

        entry = self._waiting.get(key)
        if entry is None:
            entry = self._waiting[key] = _Entry(value)
        elif value is not None:
            entry.value = value
        hub = get_hub()
        waiter = Waiter(hub)
        entry.waiters.append(waiter)
        self._waiters += 1
        self._deadlines[waiter] = deadline
        if runner is not None:
            gevent.spawn_raw(self._run, runner)
        if self._ticker is None:
            self._ticker = hub.loop.timer(TICK, TICK)
            self._ticker.start(self._tick)
        try:
            result: Result | None = waiter.get()
            return result
        except BaseException as ex:
            if isinstance(ex, DeadlineExceeded):
                self._exceeded.inc()
            self._withdraw(key, entry, waiter)
            raise
        finally:
            del self._deadlines[waiter]

    def _tick(self) -> None:
        """Called in the hub: end waits that took too long, and look for a slow statement."""
        if not self._deadlines:
            self._ticker.close()
            self._ticker = None
            return
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP
            for waiter in [waiter for waiter, end in self._deadlines.items() if end <= now]:
                waiter.throw(_late())
        if self._waiting:
            self._begin_another()

    def _begin_another(self) -> None:
        """Let a lane begin for those who wait, if one may."""
        if (runner := self._lanes.take(time.monotonic())) is not None:
            gevent.spawn_raw(self._run, runner)

    def _run_alone(
        self, runner: _Runner[Value, Result], key: str, value: Value, deadline: float
    ) -> Result | None:
        """Run a statement for one request without handing over to another greenlet."""
        self._sizes.observe(1)
        try:
            result = runner.lane({key: value}, deadline).get(key)
        finally:
            self._lanes.give_back(runner)
            if self._waiting:
                self._begin_another()
        if isinstance(result, Exception):
            raise result
        return result

    def _run(self, runner: _Runner[Value, Result] | None) -> None:
        """Run statements for as long as anybody waits, and no other lane does it."""
        while runner is not None:
            try:
                self._run_batch(runner)
            finally:
                self._lanes.give_back(runner)
            runner = self._lanes.take(time.monotonic()) if self._waiting else None

    def _run_batch(self, runner: _Runner[Value, Result]) -> None:
        batch, deadline = self._take()
        if not batch:
            return
        self._last = len(batch)
        self._sizes.observe(len(batch))
        values = {key: entry.value for key, entry in batch.items()}
        results: Mapping[str, Result | Exception | None]
        try:
            results = runner.lane(values, deadline)
        except Exception as ex:
            results = dict.fromkeys(batch, ex)
        # One callback wakes all: one for each would cost every request half a µs.
        get_hub().loop.run_callback(_wake, batch, results)

    def _take(self) -> tuple[dict[str, _Entry[Value]], float]:
        """Remove a batch from the waiting set, the oldest keys first.

        Returns the batch and the earliest deadline of its waiters. Waiters with too little time
        left get DeadlineExceeded instead.
        """
        if len(self._waiting) <= self._max_batch:
            batch, self._waiting = self._waiting, {}
            self._waiters = 0
        else:
            keys = list(self._waiting)[: self._max_batch]
            batch = {key: self._waiting.pop(key) for key in keys}
            self._waiters -= sum(len(entry.waiters) for entry in batch.values())
        deadline = self._first_deadline(batch)
        least = time.monotonic() + self._least
        if deadline < least:
            self._dismiss(batch, least)
            deadline = self._first_deadline(batch)
        return batch, deadline

    def _first_deadline(self, batch: Mapping[str, _Entry[Value]]) -> float:
        deadlines = self._deadlines
        ends = [deadlines[waiter] for entry in batch.values() for waiter in entry.waiters]
        return min(ends, default=inf)

    def _dismiss(self, batch: dict[str, _Entry[Value]], least: float) -> None:
        """Refuse waiters whose deadline is before `least`; drop keys that nobody else waits for."""
        run_callback = get_hub().loop.run_callback
        for key, entry in list(batch.items()):
            late = [waiter for waiter in entry.waiters if self._deadlines[waiter] < least]
            for waiter in late:
                entry.waiters.remove(waiter)
                run_callback(waiter.throw, _late())
            if not entry.waiters:
                del batch[key]

    def _withdraw(self, key: str, entry: _Entry[Value], waiter: Waiter) -> None:
        """Forget a waiter that gave up. A key that nobody waits for is not run."""
        if self._waiting.get(key) is entry:
            entry.waiters.remove(waiter)
            self._waiters -= 1
            if not entry.waiters:
                del self._waiting[key]


def _wake(batch: Mapping[str, _Entry[Any]], results: Mapping[str, Any | Exception | None]) -> None:
    """Called in the hub: give all who wait for a batch their results."""
    for key, entry in batch.items():
        result = results.get(key)
        for waiter in entry.waiters:
            if isinstance(result, Exception):
                waiter.throw(result)
            else:
                waiter.switch(result)


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the database did not answer in time")
