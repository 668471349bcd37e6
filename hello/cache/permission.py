"""Whether the cache may be used: the primary gives permission, and a writer can suspend it.

A writer that cannot reach the cache cannot remove what it holds, while readers elsewhere
may reach it and show the past. But all workers can ask the primary, which has committed the
write. So one row of a table there says which *generation* of keys is used, and until when the cache
is *suspended*:

- A worker reads from the cache only while it holds a permission: no longer than TERM ago it asked
  the primary, which named the generation and no suspension.
- A writer that fails to remove something from the cache after its commit suspends it for
  SUSPENSION and begins a new generation, then waits until every permission that was given before
  has ended. Only then the write is acknowledged. While the cache is suspended, writers have
  nothing to remove and nothing to wait for.
- When a suspension is over, readers begin with a generation in which nothing is stored yet.
- The row also names the cache server's *history*. A worker whose server has another one (it has
  restarted, failed over, or is another server than the others have) does without the cache, and
  suspends it to have the row name its own server. Workers that differ for good suspend it again and
  again: nobody reads from either server.

SUSPENSION is so much longer than TERM that every permission for a generation has ended
when the next one comes into use. A permission's end is measured by the machine's own clock, one
that goes on while the machine sleeps; the primary's clock alone says when a suspension ends.
Deadlines, which callers give, are in terms of time.monotonic(). See docs/decisions/cache.md.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gevent
from gevent.lock import Semaphore

from hello.breaker import Breaker
from hello.database.models import CacheStanding, Generation
from hello.database.postgresql import PostgreSQLConnection
from hello.database.session import Session
from hello.errors import DatabaseUnavailable, SchemaOutdated
from hello.telemetry import metrics

#: Seconds for which a permission holds.
TERM = 0.5
#: Seconds for which a writer suspends the cache.
SUSPENSION = 5.0
#: Seconds after which a suspension is renewed if the cache still does not answer.
RENEWAL = 1.0
#: Seconds by which the clocks of the old and the new primary may differ in a failover, or by which
#: a primary's clock is set: a suspension may end so much earlier than the primary said.
CLOCKS = 2.0
#: Seconds that a reader waits for the primary's answer.
ASK_TIMEOUT = 0.5

#: A clock that goes on while the machine sleeps, where the platform has one.
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

log = logging.getLogger(__name__)


def _clock() -> float:
    return time.clock_gettime(CLOCK)


class Permission:
    """A worker's permission to use the cache, for all of its lanes.

    `session`, with the primary, is used by one lane at a time. Permissions and suspensions are
    measured by `clock`, deadlines by `monotonic`; `sleep` takes seconds.
    """

    def __init__(
        self,
        session: Session[PostgreSQLConnection],
        clock: Callable[[], float] = _clock,
        sleep: Callable[[float], None] = gevent.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._clock = clock
        self._sleep = sleep
        self._monotonic = monotonic
        self._lock = Semaphore()
        self._breaker = Breaker(cooldown=ASK_TIMEOUT, clock=clock)
        #: The last generation that the primary named.
        self.generation: Generation | None = None
        #: When this worker first heard of it.
        self._heard_at = 0.0
        #: When the permission ends; 0 while the cache is suspended.
        self._usable_until = 0.0
        #: When the suspension ends for readers, by the clock of the primary that told of it.
        self._suspended_until = 0.0
        #: When it ends for writers, whichever server is the primary then.
        self._surely_suspended_until = 0.0
        #: When every permission that was given before the suspension has ended.
        self._settled_at = 0.0
        metrics.CACHE_SUSPENDED.labels().watch(lambda: self.suspended)

    @property
    def suspended(self) -> bool:
        return self._clock() < self._suspended_until

    def to_read(self, deadline: float) -> CacheStanding | None:
        """The generation to read from; None if the cache may not be read.

        Called after the request has come, so that the answer is as new as the promise wants. Waits
        for the primary for ASK_TIMEOUT at most.
        """
        if not self._usable and not self.suspended and self._breaker.allows():
            if self._breaker.is_open:
                gevent.spawn(self._try_to_ask, float("inf"))
            else:
                self._try_to_ask(deadline)
        if self.suspended or self.generation is None:
            return None
        if self._usable:
            return CacheStanding(self.generation)
        return CacheStanding(self.generation, confirmed=False) if self._breaker.is_open else None

    def to_acknowledge(self, deadline: float) -> Generation | None:
        """The generation from which written users must be removed before the write is acknowledged.

        None if nothing must be removed: the cache is suspended. Called after the commit. Raises
        DatabaseUnavailable if the write cannot be acknowledged by `deadline`.
        """
        # RENEWAL before its end, the primary is asked whether the suspension was renewed.
        if not self._usable and not self._surely_suspended(RENEWAL):
            try:
                self._ask(deadline, RENEWAL)
            except DatabaseUnavailable:
                if not self._surely_suspended():
                    raise
        if self._surely_suspended():
            self._settle(deadline)
            return None
        # If it is suspended all the same, this generation is the one that comes into use next.
        self._settle(deadline)
        return self.generation

    def suspend(self, deadline: float, history: str | None = None) -> None:
        """Keep every worker from reading the cache: on return, none does.

        `history` is that of the server to use afterwards, if it is not the one that the primary
        names. Raises DatabaseUnavailable if it is not certain by `deadline`.
        """
        begins = history is not None or not self.suspended
        with self._alone(deadline):
            asked = self._clock()
            standing = self._session.call(
                lambda c: c.suspend_cache(SUSPENSION, history, deadline), deadline, "suspend"
            )
            self._learn(standing, asked)
        if begins:
            why = "cannot be written" if history is None else "is not the one that was used last"
            log.warning("the cache %s: it is suspended for everybody", why)
            metrics.CACHE_SUSPENSIONS.inc()
        self._settle(deadline)

    @property
    def _usable(self) -> bool:
        return self._clock() < self._usable_until

    def _surely_suspended(self, seconds: float = 0.0) -> bool:
        """Whether the cache is suspended for that long, whichever server is the primary."""
        return self._clock() + seconds < self._surely_suspended_until

    def _try_to_ask(self, deadline: float) -> None:
        end = self._monotonic() + ASK_TIMEOUT
        try:
            self._ask(min(deadline, end))
        except SchemaOutdated:
            self._breaker.succeeded()  # the primary answers, and no worker may read
        except DatabaseUnavailable:
            # The primary is not to blame if it was given less than ASK_TIMEOUT.
            if end <= deadline or self._monotonic() < deadline:
                self._breaker.failed()
        else:
            self._breaker.succeeded()

    def _ask(self, deadline: float, seconds: float | None = None) -> None:
        """Ask the primary how the cache stands, unless that is known.

        For writers, `seconds` is how long a suspension must still last to count as known.
        """
        with self._alone(deadline):
            suspended = self.suspended if seconds is None else self._surely_suspended(seconds)
            if self._usable or suspended:
                return  # another lane has just asked
            asked = self._clock()
            standing = self._session.call(
                lambda c: c.cache_standing(deadline), deadline, "permission"
            )
            self._learn(standing, asked)

    @contextmanager
    def _alone(self, deadline: float) -> Iterator[None]:
        """Hold the session, which other lanes use as well; raises DatabaseUnavailable."""
        if not self._lock.acquire(timeout=max(0.0, deadline - self._monotonic())):
            raise DatabaseUnavailable("another lane still waits for the primary's answer")
        try:
            yield
        finally:
            self._lock.release()

    def _learn(self, standing: CacheStanding, asked: float) -> None:
        """Keep how the cache stands, as the primary answered a question sent at `asked`."""
        now = self._clock()
        if standing.generation != self.generation:
            self._heard_at = now
            if self.generation is not None and not standing.suspended_for:
                # The suspension took longer to commit than it lasted: a worker that asked just
                # before the commit still has a permission.
                self._settled_at = now + TERM
        self.generation = standing.generation
        left = min(standing.suspended_for, SUSPENSION)
        if standing.suspended_for > SUSPENSION + CLOCKS:
            # The primary's clock was set back by much: the end is reckoned from when the worker
            # heard.
            left = max(0.0, self._heard_at + SUSPENSION - asked)
        if not left:
            self._usable_until = asked + TERM
            return
        # If the suspension was renewed in time, no worker has had a permission meanwhile.
        if not self._surely_suspended():
            self._settled_at = now + TERM
        self._usable_until = 0.0
        self._suspended_until = asked + left
        # Writers do not rely on a suspension that is said to last longer than any does.
        certain = standing.suspended_for <= SUSPENSION
        self._surely_suspended_until = asked + left - CLOCKS if certain else 0.0

    def _settle(self, deadline: float) -> None:
        """Wait until every permission that was given before has ended."""
        wait = self._settled_at - self._clock()
        if self._monotonic() + wait > deadline:
            raise DatabaseUnavailable("others may still read from the cache")
        if wait > 0:
            self._sleep(wait)
