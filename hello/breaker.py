"""A circuit breaker: a dependency that fails is left alone for a moment."""

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
    """Closed while all is well; open for a while after a failure; then one try decides.

    `name` is the dependency's, for the log and for the gauge `hello_breaker_open`; one without a
    name has neither. `cooldown` is in seconds. It serves greenlets of one process: nothing here
    waits.
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
        """Whether to try now. While open, one caller in each cooldown is let through."""
        if self._retry_at is None:
            return True
        now = self._clock()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._cooldown
        return True

    def failed(self, cooldown: float | None = None, *, reason: object = None) -> None:
        """Open. `reason` is for the log; without one, somebody else has said it."""
        if reason is not None:
            self._outage.begin(reason)
        self._retry_at = self._clock() + (self._cooldown if cooldown is None else cooldown)

    def succeeded(self) -> None:
        self._outage.end()
        self._retry_at = None
