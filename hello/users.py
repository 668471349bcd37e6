"""Find and save users: requests are batched, and batches run on lanes."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hello.batching import Batcher, Lane
from hello.cache.connection import Lease
from hello.database.models import NO_SUCH_USER, Details, Record


class Users:
    """The stored users, by name.

    `readers` and `writers` are lanes over the databases, `cached` lanes over the cache,
    if there is one. `timeout`, in seconds, bounds each call; `max_waiting` the calls that
    wait for each of the three sorts of lanes. `batcher` makes the batcher of each sort.

    Every method raises `hello.errors.Unavailable` or `hello.errors.Rejected`.
    """

    def __init__(
        self,
        readers: Sequence[Lane[Lease | None, Record]],
        writers: Sequence[Lane[Details, int]],
        cached: Sequence[Lane[None, Record | Lease]] = (),
        *,
        max_waiting: int,
        timeout: float,
        batcher: Callable[..., Batcher[Any, Any]] = Batcher,
    ) -> None:
        self._timeout = timeout
        make = partial(batcher, max_waiting=max_waiting, timeout=timeout)
        self._reads: Batcher[Lease | None, Record] = make(readers, kind="read")
        self._writes: Batcher[Details, int] = make(writers, kind="write")
        self._cached: Batcher[None, Record | Lease] | None = None
        if cached:
            self._cached = make(cached, kind="cache")

    def find(self, name: str) -> Record:
        """The record of a user; NO_SUCH_USER if there is none."""
        if self._cached is None:
            return self._reads.submit(name, None) or NO_SUCH_USER
        end = time.monotonic() + self._timeout
        # Hits do not wait for misses, which go on to a batch of their own.
        cached = self._cached.submit(name, None)
        if isinstance(cached, Record):
            return cached
        left = max(0.001, end - time.monotonic())
        return self._reads.submit(name, cached, left) or NO_SUCH_USER

    def save(self, name: str, details: Details) -> None:
        """Create the user, or change what is stored; it is committed on return."""
        self._writes.submit(name, details)

    def ping(self, timeout: float) -> None:
        """Read a user that cannot exist, to see that some database answers. `timeout`: seconds."""
        self._reads.submit("", None, timeout)
