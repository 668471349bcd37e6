"""Natural batching: requests that arrive while a statement is in flight share the next one.

A lane runs one statement at a time. A request puts its key into the waiting set and
sleeps; a lane that is free takes everything that waits, runs one statement for all of
it, and wakes each waiter with its own result. There is no timer and no delay: a
request that is alone runs at once, in its own greenlet, and batches grow only as the
database becomes the bottleneck.
"""

import time
from collections.abc import Mapping, Sequence
from math import inf
from typing import Generic, Protocol, TypeVar

import gevent
from gevent.hub import Waiter

from hello.errors import DeadlineExceeded, Overloaded
from hello.telemetry import metrics

Value = TypeVar("Value")
Result = TypeVar("Result")
ResultOut = TypeVar("ResultOut", covariant=True)


#: Seconds that a request must have left when a statement begins, or a quarter of its whole time if
#: that is less. A request with less is refused: all that share the statement would end with it.
LEAST = 0.25


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


class _Entry(Generic[Value]):
    """A key that waits, its value, and everybody who waits for it, with their deadlines."""

    __slots__ = ("value", "waiters")

    def __init__(self, value: Value) -> None:
        self.value = value
        self.waiters: dict[Waiter, float] = {}


class Batcher(Generic[Value, Result]):
    """Shares statements between greenlets of one hub.

    `lanes` run concurrently; `kind` is their label in metrics. `max_batch` bounds the keys of
    one statement, `max_waiting` the requests that wait for one. `timeout`, in seconds,
    bounds the time from `submit` to its answer. A batch has the earliest deadline of its waiters.
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
        self._idle = list(lanes)
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._timeout = timeout
        self._least = min(LEAST, timeout / 4)
        self._waiting: dict[str, _Entry[Value]] = {}
        self._waiters = 0
        # Keys of the last statement: 1 means that requests come one by one.
        self._last = 1
        self._kind = kind
        self._sizes = metrics.BATCH_SIZE.labels(kind)
        self._shed = metrics.SHED.labels(kind)
        self._deadlines = metrics.DEADLINES.labels(kind)
        metrics.WAITING.labels(kind).watch(lambda: self._waiters)

    def submit(self, key: str, value: Value, timeout: float | None = None) -> Result | None:
        """Wait for a statement that has `key`, and return its result for that key.

        If several requests submit the same key for the same statement, the last
        value that is not None is used and all get its result.

        Raises Overloaded at once if too many wait, DeadlineExceeded when the time is
        up, and whatever the lane raises. A caller that leaves early, killed or timed
        out, leaves the others alone.
        """
        timeout = self._timeout if timeout is None else timeout
        if self._idle and self._last == 1 and not self._waiting:
            return self._run_alone(key, value, timeout)
        if self._waiters >= self._max_waiting:
            self._shed.inc()
            raise Overloaded("too many requests are waiting for the database")

        entry = self._waiting.get(key)
        if entry is None:
            entry = self._waiting[key] = _Entry(value)
        elif value is not None:
            entry.value = value
        hub = gevent.get_hub()
        waiter = Waiter(hub)
        entry.waiters[waiter] = time.monotonic() + timeout
        self._waiters += 1
        if self._idle:
            gevent.spawn_raw(self._run, self._idle.pop())

        timer = hub.loop.timer(timeout)
        # With `update`, since the loop's own time may lag: the timer must not fire before the
        # deadline.
        timer.start(waiter.throw, _late(), update=True)
        try:
            result: Result | None = waiter.get()
            return result
        except BaseException as ex:
            if isinstance(ex, DeadlineExceeded):
                self._deadlines.inc()
            self._withdraw(key, entry, waiter)
            raise
        finally:
            timer.close()

    def _run_alone(self, key: str, value: Value, timeout: float) -> Result | None:
        """Run a statement for one request without handing over to another greenlet."""
        lane = self._idle.pop()
        self._sizes.observe(1)
        try:
            results = lane({key: value}, time.monotonic() + timeout)
        finally:
            self._idle.append(lane)
            if self._waiting:
                gevent.spawn_raw(self._run, self._idle.pop())
        result = results.get(key)
        if isinstance(result, Exception):
            raise result
        return result

    def _run(self, lane: Lane[Value, Result]) -> None:
        """Run statements on `lane` for as long as anybody waits."""
        try:
            while self._waiting:
                batch, deadline = self._take()
                if not batch:
                    continue
                self._last = len(batch)
                self._sizes.observe(len(batch))
                values = {key: entry.value for key, entry in batch.items()}
                results: Mapping[str, Result | Exception | None]
                try:
                    results = lane(values, deadline)
                except Exception as ex:
                    results = dict.fromkeys(batch, ex)
                wake = gevent.get_hub().loop.run_callback
                for key, entry in batch.items():
                    result = results.get(key)
                    for waiter in entry.waiters:
                        if isinstance(result, Exception):
                            wake(waiter.throw, result)
                        else:
                            wake(waiter.switch, result)
        finally:
            self._idle.append(lane)

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
        deadline = _first_deadline(batch)
        least = time.monotonic() + self._least
        if deadline < least:
            _dismiss(batch, least)
            deadline = _first_deadline(batch)
        return batch, deadline

    def _withdraw(self, key: str, entry: _Entry[Value], waiter: Waiter) -> None:
        """Forget a waiter that gave up. A key that nobody waits for is not run."""
        if self._waiting.get(key) is entry:
            del entry.waiters[waiter]
            self._waiters -= 1
            if not entry.waiters:
                del self._waiting[key]


def _first_deadline(batch: Mapping[str, _Entry[Value]]) -> float:
    return min([end for entry in batch.values() for end in entry.waiters.values()], default=inf)


def _dismiss(batch: dict[str, _Entry[Value]], least: float) -> None:
    """Refuse waiters whose deadline is before `least`; drop keys that nobody else waits for."""
    wake = gevent.get_hub().loop.run_callback
    for key, entry in list(batch.items()):
        for waiter, deadline in list(entry.waiters.items()):
            if deadline < least:
                del entry.waiters[waiter]
                wake(waiter.throw, _late())
        if not entry.waiters:
            del batch[key]


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the database did not answer in time")
