"""Find and save users: the batches, over the routes they use."""

from collections.abc import Sequence
from datetime import date

from hello.batching import Batcher, Lane
from hello.cache import Cached, Lease
from hello.models import Birthday


class Users:
    """The stored users.

    `readers` and `writers` are lanes over the databases, `cached` lanes over the cache,
    if there is one. `timeout`, in seconds, bounds each call; `max_waiting` the calls that
    wait for each kind of lane.

    Every method raises `hello.errors.Unavailable` or `hello.errors.Rejected`.
    """

    def __init__(
        self,
        readers: Sequence[Lane[Lease | None, Birthday]],
        writers: Sequence[Lane[date, int]],
        cached: Sequence[Lane[None, Cached]] = (),
        *,
        max_waiting: int = 1024,
        timeout: float = 5.0,
    ) -> None:
        self._reads = Batcher(readers, kind="read", max_waiting=max_waiting, timeout=timeout)
        self._writes = Batcher(writers, kind="write", max_waiting=max_waiting, timeout=timeout)
        self._cached = (
            Batcher(cached, kind="cache", max_waiting=max_waiting, timeout=timeout)
            if cached
            else None
        )

    def find(self, username: str) -> Birthday | None:
        """What is stored of a user."""
        lease: Lease | None = None
        if self._cached is not None:
            # Hits do not wait for misses: those go on to a batch of their own.
            cached = self._cached.submit(username, None)
            if isinstance(cached, Birthday):
                return cached
            lease = cached
        return self._reads.submit(username, lease)

    def save(self, username: str, date_of_birth: date) -> None:
        """Create the user, or change the date; it is committed on return."""
        self._writes.submit(username, date_of_birth)

    def ping(self, timeout: float) -> None:
        """Look up a user that cannot exist, to see that some database can be read."""
        self._reads.submit("", None, timeout)
