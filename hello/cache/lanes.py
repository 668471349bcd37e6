"""The lanes that use the cache: one asks it, the others wrap the lanes of the database."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

import gevent

from hello.batching import Lane
from hello.breaker import Breaker
from hello.cache.connection import AnotherHistory, CacheConnection, CacheUnavailable, Lease
from hello.cache.permission import RENEWAL, Permission
from hello.database.models import Generation, Record
from hello.errors import DatabaseUnavailable
from hello.telemetry import metrics

log = logging.getLogger(__name__)

#: A generation of no key: removing from it shows whether the cache can be written.
UNUSED = Generation(0, "")

Value = TypeVar("Value")
Result = TypeVar("Result")


class Cache:
    """What the lanes of a worker share about the cache.

    `connect` returns a new connection, for one lane.
    """

    def __init__(self, connect: Callable[[], CacheConnection], permission: Permission) -> None:
        self.connect = connect
        self.permission = permission
        #: The breaker of readers. A writer that fails suspends the cache, so that no lane tries.
        self.breaker = Breaker("cache")
        self._suspending = self._naming = False

    def attempt(self, operation: Callable[[], Result]) -> Result:
        """Run an operation for a reader; raises CacheUnavailable, at once while left alone."""
        if not self.breaker.allows():
            raise CacheUnavailable("left alone")
        try:
            result = operation()
        except AnotherHistory as ex:
            self.breaker.succeeded()
            gevent.spawn(self._try_to_use, ex.history)
            raise
        except CacheUnavailable as ex:
            self.breaker.failed(reason=ex)
            metrics.CACHE_FAILURES.inc()
            raise
        self.breaker.succeeded()
        return result

    def suspend(self, why: CacheUnavailable, deadline: float) -> None:
        """Keep every worker from reading the cache, until this worker can write to it again.

        Raises DatabaseUnavailable if it is not certain by `deadline` that none reads from it.
        """
        if isinstance(why, AnotherHistory):
            self.permission.suspend(deadline, why.history)
            return
        metrics.CACHE_FAILURES.inc()
        if not self._suspending:
            self._suspending = True
            gevent.spawn(self._stay_suspended)
        self.permission.suspend(deadline)

    def _try_to_use(self, history: str) -> None:
        """Have all workers use the server of this history, after a suspension."""
        named = self.permission.generation
        if self._naming or self.permission.suspended or (named and named.history == history):
            return
        self._naming = True
        try:
            self.permission.suspend(time.monotonic() + RENEWAL, history)
        except DatabaseUnavailable:
            gevent.sleep(RENEWAL)  # no other greenlet names one meanwhile
        finally:
            self._naming = False

    def _stay_suspended(self) -> None:
        connection = self.connect()
        try:
            while True:
                gevent.sleep(RENEWAL)
                with suppress(CacheUnavailable):
                    with suppress(AnotherHistory):
                        connection.remove([""], UNUSED)  # no user has the empty name
                    return
                metrics.CACHE_FAILURES.inc()  # while suspended, lanes do not count any
                with suppress(DatabaseUnavailable):
                    self.permission.suspend(time.monotonic() + RENEWAL)
        finally:
            self._suspending = False
            connection.close()


class CacheReads:
    """A lane that asks the cache: a record, a lease, or nothing."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._connection = cache.connect()

    def __call__(self, names: dict[str, None], deadline: float, /) -> Mapping[str, Record | Lease]:
        standing = self._cache.permission.to_read(deadline)
        if standing is None:
            return {}
        try:
            found = self._cache.attempt(lambda: self._connection.claim(names, standing.generation))
        except CacheUnavailable:
            return {}
        hits = sum(isinstance(value, Record) for value in found.values())
        metrics.CACHE_HITS.inc(hits)
        metrics.CACHE_MISSES.inc(len(names) - hits)
        return found if standing.confirmed else _unconfirmed(found)


def _unconfirmed(found: Mapping[str, Record | Lease]) -> dict[str, Record | Lease]:
    """The records, as stale, and no lease: without permission nothing may be stored."""
    return {
        name: record._replace(stale=True)
        for name, record in found.items()
        if isinstance(record, Record)
    }


class FillingReads:
    """A read lane that stores in the cache what it read under a lease."""

    def __init__(self, reads: Lane[Lease | None, Record], cache: Cache) -> None:
        self._reads = reads
        self._cache = cache
        self._connection = cache.connect()

    def __call__(
        self, leases: dict[str, Lease | None], deadline: float, /
    ) -> Mapping[str, Record | Exception]:
        found = self._reads(leases, deadline)
        # Each batch that asked the cache got one lease; a batch here may have users of several.
        fills: dict[Lease, dict[str, Record]] = {}
        for name, lease in leases.items():
            record = found.get(name)
            if lease and isinstance(record, Record) and not record.stale:
                fills.setdefault(lease, {})[name] = record
        with suppress(CacheUnavailable):
            for lease, records in fills.items():
                self._cache.attempt(partial(self._connection.fill, lease, records))
        return found


class RemovingWrites(Generic[Value, Result]):
    """A write lane that removes from the cache what it committed, before anybody is answered.

    If the cache does not answer, it is suspended instead.
    """

    def __init__(self, writes: Lane[Value, Result], cache: Cache) -> None:
        self._writes = writes
        self._cache = cache
        self._connection = cache.connect()

    def __call__(
        self, batch: dict[str, Value], deadline: float, /
    ) -> Mapping[str, Result | Exception]:
        try:
            results = self._writes(batch, deadline)
        except DatabaseUnavailable:
            # The write may have been committed all the same, and then the cache is out of date.
            self._try_to_remove(batch)
            raise
        written = [name for name in batch if not isinstance(results.get(name), Exception)]
        generation = self._cache.permission.to_acknowledge(deadline)
        if generation is not None and written:
            try:
                self._connection.remove(written, generation)
            except CacheUnavailable as ex:
                self._cache.suspend(ex, deadline)
        return results

    def _try_to_remove(self, names: Iterable[str]) -> None:
        generation = self._cache.permission.generation
        if generation is not None and not self._cache.permission.suspended:
            with suppress(CacheUnavailable):
                self._connection.remove(names, generation)
