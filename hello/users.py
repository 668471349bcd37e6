"""Find and save users: the batches, over the routes they use."""

import time
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from typing import Any

from hello.batching import Batcher, Lane
from hello.cache.connection import Cached, Lease
from hello.database.models import Birthday


class Users:
    """The stored users.

    `readers` and `writers` are lanes over the databases, `cached` lanes over the cache,
    if there is one. `timeout`, in seconds, bounds each call; `max_waiting` the calls that
    wait for each kind of lane. `batcher` makes what shares lanes between requests.

    Every method raises `hello.errors.Unavailable` or `hello.errors.Rejected`.
    """

    def __init__(
        self,
        readers: Sequence[Lane[Lease | None, Birthday]],
        writers: Sequence[Lane[date, int]],
        cached: Sequence[Lane[None, Cached]] = (),
        *,
        max_waiting: int,
        timeout: float,
        batcher: Callable[..., Batcher[Any, Any]] = Batcher,
    ) -> None:
        self._timeout = timeout
        make = partial(batcher, max_waiting=max_waiting, timeout=timeout)
        self._reads: Batcher[Lease | None, Birthday] = make(readers, kind="read")
        self._writes: Batcher[date, int] = make(writers, kind="write")
        self._cached: Batcher[None, Cached] | None = make(cached, kind="cache") if cached else None

    def find(self, username: str) -> Birthday | None:
        """What is stored of a user."""
        if self._cached is None:
            return self._reads.submit(username, None)
        end = time.monotonic() + self._timeout
        # Hits do not wait for misses: those go on to a batch of their own.
        cached = self._cached.submit(username, None)
        if isinstance(cached, Birthday):
            return cached
        return self._reads.submit(username, cached, max(0.001, end - time.monotonic()))

    def save(self, username: str, date_of_birth: date) -> None:
        """Create the user, or change the date; it is committed on return."""
        self._writes.submit(username, date_of_birth)

    def ping(self, timeout: float) -> None:
        """Look up a user that cannot exist, to see that some database can be read."""
        self._reads.submit("", None, timeout)
