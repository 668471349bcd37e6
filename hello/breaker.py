"""A circuit breaker, which leaves a dependency alone after it failed; and its line in the log."""

import logging
import time
from collections.abc import Callable

from hello.telemetry import metrics

log = logging.getLogger(__name__)


class Outage:
    """Logs once that a dependency does not answer, and once that it does again."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lasts = False

    def begin(self, reason: object) -> None:
        if self._name and not self._lasts:
            self._lasts = True
            log.warning("the %s does not answer: %s", self._name, reason)

    def end(self) -> None:
        if self._lasts:
            self._lasts = False
            log.warning("the %s answers again", self._name)


class Breaker:
    """Closed while the dependency answers; open after a failure, until an attempt succeeds.

    `name` is the dependency's, in the log and in the gauge `hello_breaker_open`; a breaker without
    a name has neither. `cooldown`, in seconds, is the time between two attempts while it is open.
    Greenlets of one process can share a breaker: no method waits.
    """

    def __init__(
        self,
        name: str = "",
        cooldown: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cooldown = cooldown
        self._clock = clock
        self._retry_at: float | None = None
        self._outage = Outage(name)
        if name:
            metrics.BREAKERS.labels(name).watch(lambda: self.is_open)

    @property
    def is_open(self) -> bool:
        return self._retry_at is not None

    @property
    def state(self) -> str:
        return "open" if self.is_open else "closed"

    def allows(self) -> bool:
        """Whether the caller may try now: while open, one caller in each cooldown may."""
        if self._retry_at is None:
            return True
        now = self._clock()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._cooldown
        return True

    def failed(self, cooldown: float | None = None, *, reason: object = None) -> None:
        """Open, for `cooldown` seconds or the usual time. `reason`, if given, is logged."""
        if reason is not None:
            self._outage.begin(reason)
        self._retry_at = self._clock() + (self._cooldown if cooldown is None else cooldown)

    def succeeded(self) -> None:
        self._outage.end()
        self._retry_at = None
