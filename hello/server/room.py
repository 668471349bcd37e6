"""Room for clients: a limit for their connections, and one for the bytes held for them.

When there is no room for more connections, those give way that have waited longest for their
clients: of those that never asked for anything, or of the others, whichever are more. So no crowd
of clients that are silent, that ask once, that begin and never end, or that never read, locks
others out. A connection never gives way while the service works on its request.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from gevent import get_hub

from hello.lifecycle import process
from hello.telemetry import metrics
from hello.telemetry.logs import Seldom

#: How many connections give way at once: AT_ONCE, or one of SHARE if that is less. To find them
#: costs a look at all. As many are accepted beyond the limit, to be served while others end, and
#: as many of those that began to wait last are left alone: they may be about to send.
AT_ONCE, SHARE = 128, 8

#: Bytes of requests that are not complete, and of answers that are not read, that are held for
#: all clients of a worker together; they take twice the memory. 64 KiB for each connection would
#: be too much.
MAX_HELD_FOR_ALL = 8 * 1024 * 1024


class Guest(Protocol):
    """What takes room: see `hello.server.connection.Connection`, which has these members."""

    answered: bool
    waits_since: float
    held: int

    @property
    def waits_for_client(self) -> bool: ...

    def give_way(self) -> None: ...


G = TypeVar("G", bound=Guest)


class Room(Generic[G]):
    """The connections of a worker, at most `limit` and a few more for a moment.

    `warn` is called with the reason when connections have to give way.
    """

    def __init__(self, limit: int, warn: Callable[[str], None]) -> None:
        self._limit = limit
        #: One for each reason, so that none keeps another out of the log.
        self._warnings: dict[str, Seldom] = defaultdict(lambda: Seldom(warn))
        self._guests: set[G] = set()
        self._held = 0
        self._is_making = False
        #: Why `make` was called; "" if it was not.
        self._wanted = ""
        metrics.CONNECTIONS.labels().watch(lambda: len(self._guests))

    @staticmethod
    def size(limit: int) -> int:
        """How many connections there can be for a moment."""
        return limit + max(1, min(AT_ONCE, limit // SHARE))

    def __iter__(self) -> Iterator[G]:
        return iter(self._guests)

    def add(self, guest: G) -> None:
        self._guests.add(guest)
        self.keep_to_limit()

    def discard(self, guest: G) -> None:
        self._guests.discard(guest)

    def hold(self, size: int) -> bool:
        """Count bytes that are held for a client; a negative size if they no longer are.

        False if far too many are held for all: the connection that adds to them is to end.
        """
        self._held += size
        if self._held > MAX_HELD_FOR_ALL:
            self._make_soon()
        return self._held < 2 * MAX_HELD_FOR_ALL or process.draining

    def keep_to_limit(self) -> None:
        """Make room if there are too many connections.

        It is called again and again: those that were busy may wait for their clients by now.
        """
        if len(self._guests) > self._limit:
            self._make_soon()

    def make(self, why: str) -> None:
        """Let some connections give way for another reason than the limits: `why`, for the log."""
        self._wanted = why
        self._make_soon()

    def _make_soon(self) -> None:
        # It runs in the hub, when no connection is in the middle of something.
        if not self._is_making:
            self._is_making = True
            get_hub().loop.run_callback(self._make)

    def _make(self) -> None:
        self._is_making = False
        why, self._wanted = self._wanted, ""
        # A drain closes idle connections itself, and lets the others end their requests.
        if process.draining:
            return
        if len(self._guests) > self._limit:
            why = why or f"all {self._limit} connections are taken"
        too_much = self._held - MAX_HELD_FOR_ALL
        if not why and too_much <= 0:
            return
        reason = why or f"clients leave more than {MAX_HELD_FOR_ALL} bytes unsent or unread"
        self._warnings[reason](reason)
        number = max(1, min(AT_ONCE, len(self._guests) // SHARE))
        waiting = [guest for guest in self._guests if guest.waits_for_client]
        waiting.sort(key=lambda guest: guest.waits_since)
        del waiting[-number:]
        ending: list[G] = []
        if why:
            asked = [guest for guest in waiting if guest.answered]
            never = [guest for guest in waiting if not guest.answered]
            # A crowd is the larger part, whether it never asks, or asks once and stays silent.
            ending = (never if len(never) >= len(asked) else asked)[:number]
        if too_much > 0:
            # Those that hold most give way, or one client could have all others ended.
            for guest in sorted(waiting, key=lambda guest: -guest.held):
                if too_much <= 0:
                    break
                if guest not in ending:
                    ending.append(guest)
                too_much -= guest.held
        metrics.GIVEN_WAY.inc(len(ending))
        for guest in ending:
            guest.give_way()
