"""Whether the cache may be used: the primary gives permission, and a writer can suspend it.

A writer that cannot reach the cache cannot remove what it holds, while readers elsewhere
may reach it and show the past. All of them can ask the primary, which has committed the
write. So one row there says which *generation* of keys is used, and until when the cache is
*suspended*:

- A worker reads from the cache only while it holds a permission: it has asked the primary
  no longer than TERM ago, and was told the generation and that nothing is suspended.
- A writer that fails to remove something from the cache after its commit suspends it for
  SUSPENSION and begins a new generation, then waits until every permission that was given before
  has ended. Only then the write is acknowledged. While the cache is suspended, writers have
  nothing to remove and nothing to wait for.
- When a suspension is over, readers begin with a generation in which nothing is stored yet.
- The row also names the cache server's *history*. Whoever is connected to a server of another
  one, since it has restarted, failed over, or been set otherwise than for the others, does
  without it, and suspends the cache to have its own named. Two that differ for good
  suspend it again and again: nobody reads from either.

SUSPENSION is so much longer than TERM that no worker believes in a generation any more
when the next one comes into use. How long something holds is reckoned with a clock of each
machine that goes on while the machine is suspended; the primary's clock alone says when a
suspension ends. Deadlines, which others give, are in terms of time.monotonic(). See
docs/decisions/cache.md.
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

#: Seconds for which the primary's word holds.
TERM = 0.5
#: Seconds for which a writer suspends the cache.
SUSPENSION = 5.0
#: Seconds after which a suspension is renewed if the cache still does not answer.
RENEWAL = 1.0
#: Seconds by which the clocks of two servers that succeed each other as primary may differ, or
#: by which one is set: a suspension may end so much earlier than was said.
CLOCKS = 2.0
#: Seconds that a reader waits for the primary's word.
ASK_TIMEOUT = 0.5

#: One that goes on while the machine is suspended, where the platform has it.
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

log = logging.getLogger(__name__)


def _clock() -> float:
    return time.clock_gettime(CLOCK)


class Permission:
    """A worker's permission to use the cache, for all of its lanes.

    `session`, with the primary, is used by one lane at a time. `clock` says what holds how
    long, and `monotonic` when a deadline has passed.
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
        #: The last one that the primary named.
        self.generation: Generation | None = None
        #: When it was named first.
        self._heard_at = 0.0
        #: Until when the primary's word holds, if it said that the cache may be used.
        self._usable_until = 0.0
        #: Until when readers take it for suspended, by the clock of who was the primary then.
        self._suspended_until = 0.0
        #: Until when writers do, whichever server is the primary.
        self._surely_suspended_until = 0.0
        #: When every permission that was given before the suspension has ended.
        self._settled_at = 0.0
        metrics.CACHE_SUSPENDED.labels().watch(lambda: self.suspended)

    @property
    def suspended(self) -> bool:
        return self._clock() < self._suspended_until

    def to_read(self, deadline: float) -> CacheStanding | None:
        """What to read from; None if nobody may read. Waits for the primary, not for long.

        Called after the request has come: then the answer is as new as the promise wants.
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
        """The generation from which a write is to be removed before it is acknowledged.

        None if that is not needed: the cache is suspended. Called after the commit. Raises
        DatabaseUnavailable if the write cannot be acknowledged by `deadline`.
        """
        # Asked in time, the primary says whether somebody renews the suspension.
        if not self._usable and not self._surely_suspended(RENEWAL):
            try:
                self._ask(deadline, RENEWAL)
            except DatabaseUnavailable:
                if not self._surely_suspended():
                    raise
        if self._surely_suspended():
            self._settle(deadline)
            return None
        # Perhaps it is suspended, and the generation the one that comes into use next.
        self._settle(deadline)
        return self.generation

    def suspend(self, deadline: float, history: str | None = None) -> None:
        """Let nobody read from the cache; it is certain on return.

        `history` is of the server that is to be used afterwards, if it is not the one that the
        primary names. Raises DatabaseUnavailable if it is not certain by `deadline`.
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
        """Whether it is suspended for that long, whichever server is the primary."""
        return self._clock() + seconds < self._surely_suspended_until

    def _try_to_ask(self, deadline: float) -> None:
        end = self._monotonic() + ASK_TIMEOUT
        try:
            self._ask(min(deadline, end))
        except SchemaOutdated:
            self._breaker.succeeded()  # it is there, and nobody may read
        except DatabaseUnavailable:
            # It is not to blame if there was little time left for it.
            if end <= deadline or self._monotonic() < deadline:
                self._breaker.failed()
        else:
            self._breaker.succeeded()

    def _ask(self, deadline: float, seconds: float | None = None) -> None:
        """Learn how the cache stands, unless it is known, to writers for so long."""
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
        """Use the session; another lane may do so until a deadline that is later."""
        if not self._lock.acquire(timeout=max(0.0, deadline - self._monotonic())):
            raise DatabaseUnavailable("another lane still waits for the primary's word")
        try:
            yield
        finally:
            self._lock.release()

    def _learn(self, standing: CacheStanding, asked: float) -> None:
        """Keep what the primary said to a question that was sent at `asked`."""
        now = self._clock()
        if standing.generation != self.generation:
            self._heard_at = now
            if self.generation is not None and not standing.suspended_for:
                # It took longer to commit that suspension than it lasted: who asked just before
                # it was seen has a permission still.
                self._settled_at = now + TERM
        self.generation = standing.generation
        left = min(standing.suspended_for, SUSPENSION)
        if standing.suspended_for > SUSPENSION + CLOCKS:
            # The primary's clock was set back by much. The suspension began before it was heard of.
            left = max(0.0, self._heard_at + SUSPENSION - asked)
        if not left:
            self._usable_until = asked + TERM
            return
        # A suspension that was renewed in good time: nobody has had a permission meanwhile.
        if not self._surely_suspended():
            self._settled_at = now + TERM
        self._usable_until = 0.0
        self._suspended_until = asked + left
        # What is said to last longer than it can, readers may not believe as long as that.
        certain = standing.suspended_for <= SUSPENSION
        self._surely_suspended_until = asked + left - CLOCKS if certain else 0.0

    def _settle(self, deadline: float) -> None:
        wait = self._settled_at - self._clock()
        if self._monotonic() + wait > deadline:
            raise DatabaseUnavailable("others may still read from the cache")
        if wait > 0:
            self._sleep(wait)
