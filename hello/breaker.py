"""A circuit breaker: a dependency that fails is left alone for a moment."""

import time
from collections.abc import Callable


class Breaker:
    """Closed while all is well; open for a while after a failure; then one try decides.

    `cooldown` is in seconds. It serves greenlets of one process: nothing here waits.
    """

    def __init__(self, cooldown: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._cooldown = cooldown
        self._clock = clock
        self._retry_at: float | None = None

    @property
    def is_open(self) -> bool:
        return self._retry_at is not None

    def allows(self) -> bool:
        """Whether to try now. While open, one caller in each cooldown is let through."""
        if self._retry_at is None:
            return True
        now = self._clock()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._cooldown
        return True

    def failed(self, cooldown: float | None = None) -> None:
        self._retry_at = self._clock() + (self._cooldown if cooldown is None else cooldown)

    def succeeded(self) -> None:
        self._retry_at = None
