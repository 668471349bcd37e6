"""Find and save users: the batches, over the routes they use."""

from collections.abc import Sequence
from datetime import date

from hello.batching import Batcher, Lane
from hello.models import Birthday


class Users:
    """The stored users.

    `readers` and `writers` are lanes: sessions over `Connection.find` and
    `Connection.save`. `timeout`, in seconds, bounds each call; `max_waiting` the
    calls that wait in each direction.

    Every method raises `hello.errors.Unavailable` or `hello.errors.Rejected`.
    """

    def __init__(
        self,
        readers: Sequence[Lane[None, Birthday]],
        writers: Sequence[Lane[date, int]],
        *,
        max_waiting: int = 1024,
        timeout: float = 5.0,
    ) -> None:
        self._reads = Batcher(readers, max_waiting=max_waiting, timeout=timeout)
        self._writes = Batcher(writers, max_waiting=max_waiting, timeout=timeout)

    def find(self, username: str) -> date | None:
        """The date of birth, or None if there is no such user."""
        found = self._reads.submit(username, None)
        return found and found.date_of_birth

    def save(self, username: str, date_of_birth: date) -> None:
        """Create the user, or change the date; it is committed on return."""
        self._writes.submit(username, date_of_birth)

    def ping(self, timeout: float) -> None:
        """Look up a user that cannot exist, to see that reading works."""
        self._reads.submit("", None, timeout)
