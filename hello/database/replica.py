"""Reading from a replica without ever reading the past.

A replica is behind the primary. A read that begins after a write was acknowledged must
see that write, so each batch is *fenced*: the primary is asked how far its write-ahead
log is flushed (a write is acknowledged only after that), and rows of the replica count
only if it had replayed that far before it took the snapshot of the rows. See
docs/decisions/fence.md.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import gevent

from hello.breaker import Breaker
from hello.database.models import Record
from hello.database.postgresql import Position, PostgreSQLConnection
from hello.database.session import Session
from hello.errors import DatabaseUnavailable, Rejected, SchemaOutdated
from hello.telemetry import metrics

#: Seconds for which a replica may catch up with the fence before the primary is read.
CATCH_UP = 0.005
#: Seconds between two questions to a replica whether it has caught up.
CATCH_UP_INTERVAL = 0.0005
#: Seconds for which a replica that did not catch up is left alone.
LAG_COOLDOWN = 0.25
#: Seconds for which a replica of another primary is left alone.
FOREIGN_COOLDOWN = 10.0
#: Seconds for which the primary, or a replica, may be silent while another server may answer.
SILENCE = 0.5
#: Seconds between two questions to a primary that was silent.
ASK_INTERVAL = 0.5
#: Seconds for which a question to a silent primary may wait for a connection.
CONNECTING = 10.0

log = logging.getLogger(__name__)


class Primary:
    """Whether the primary is silent, as all lanes of a worker know it.

    While the primary is silent, no lane asks it for the fence. A greenlet does, with `session`,
    until an answer comes in time; then `keep` gets that connection, for a lane to use.
    """

    def __init__(
        self,
        session: Session[PostgreSQLConnection],
        keep: Callable[[PostgreSQLConnection], None],
    ) -> None:
        self._session = session
        self._keep = keep
        self.silent = False

    def fell_silent(self) -> None:
        if not self.silent:
            self.silent = True
            gevent.spawn(self._wait_for_it)

    def _wait_for_it(self) -> None:
        try:
            while not self._answers():
                gevent.sleep(ASK_INTERVAL)
        finally:
            self.silent = False
            self._session.give_back(self._keep)

    def _answers(self) -> bool:
        try:
            self._session.call(
                lambda connection: connection.flushed(time.monotonic() + SILENCE),
                time.monotonic() + CONNECTING,
                "fence",
            )
        except SchemaOutdated:
            return True  # the primary answers: lanes will get the same error
        except DatabaseUnavailable:
            return False
        return True


class Replica(NamedTuple):
    """A replica, as one lane uses it."""

    name: str
    session: Session[PostgreSQLConnection]
    #: The breaker that all lanes of a worker share.
    breaker: Breaker


#: A read lane: see `hello.batching.Lane`.
Reads = Callable[[dict[str, object], float], Mapping[str, Record | Exception]]


class InTurn:
    """A read lane: each batch runs on the next of several, which must not run at the same time.

    With lanes that begin with different replicas, the replicas share the load.
    """

    def __init__(self, lanes: Sequence[Reads]) -> None:
        self._turns = cycle(lanes)

    def __call__(
        self, names: dict[str, object], deadline: float, /
    ) -> Mapping[str, Record | Exception]:
        return next(self._turns)(names, deadline)


class FencedReads:
    """A read lane: a replica's rows where they are fresh, the primary's where not.

    If the primary cannot be asked, or does not answer in time, a replica answers unfenced, and
    the records are marked stale. `replicas` are tried in order; the first that is healthy is
    used.
    """

    def __init__(
        self,
        session: Session[PostgreSQLConnection],
        primary: Primary,
        replicas: Sequence[Replica],
    ) -> None:
        self._session = session
        self._primary = primary
        self._replicas = replicas

    def __call__(
        self, names: dict[str, object], deadline: float, /
    ) -> Mapping[str, Record | Exception]:
        fence = self._fence(deadline)
        for replica in self._replicas:
            if replica.breaker.allows():
                rows = self._read(replica, names, fence, deadline)
                if rows is not None:
                    return rows
                if fence is not None:
                    break  # the primary answers, and costs no more than another replica
        metrics.PRIMARY_READS.inc()
        return self._session.find(names, deadline)

    def _fence(self, deadline: float) -> Position | None:
        """How far the primary's log is flushed now; None if the primary is away.

        Raises SchemaOutdated, which the replica may not know yet.
        """
        if self._primary.silent:
            return None
        end = time.monotonic() + SILENCE
        try:
            return self._session.call(
                # SILENCE begins anew here, in case the session had to connect first.
                lambda connection: connection.flushed(min(deadline, time.monotonic() + SILENCE)),
                min(deadline, end),
                "fence",
            )
        except SchemaOutdated:
            raise
        except DatabaseUnavailable:
            # Only a question that had its whole time shows silence. One that fails sooner costs no
            # lane any time, so lanes go on asking.
            if end <= time.monotonic() and end <= deadline:
                self._primary.fell_silent()
            return None

    def _read(
        self, replica: Replica, names: Mapping[str, object], fence: Position | None, deadline: float
    ) -> dict[str, Record] | None:
        """The replica's records; None if they are too old or do not come."""
        start = time.monotonic()
        caught_up_by, end = start + CATCH_UP, start + SILENCE
        short = deadline < end
        if fence is not None or replica is not self._replicas[-1]:
            deadline = min(deadline, end)
        while True:
            try:
                replayed, rows = replica.session.call(
                    lambda connection: connection.find_replayed(names, deadline), deadline, "find"
                )
            except DatabaseUnavailable:
                # The replica is not to blame if it was given less than SILENCE.
                if not short or time.monotonic() < deadline:
                    replica.breaker.failed()
                metrics.FENCE_FAILED.inc()
                return None
            except Rejected:
                return None  # the session with the primary finds the name at fault
            if fence is None:
                replica.breaker.succeeded()
                metrics.FENCE_UNFENCED.inc()
                return {name: record._replace(stale=True) for name, record in rows.items()}
            if replayed.lineage != fence.lineage:
                # Positions in two logs cannot be compared. The lineage is read when a connection is
                # opened, so a new connection may show that the replica has changed.
                metrics.FENCE_FOREIGN.inc()
                replica.session.close()
                if replayed.is_of_system(fence):
                    # After a failover, every replica is like this for a moment.
                    replica.breaker.failed()
                else:
                    log.error("%s does not follow this primary; it is not used", replica.name)
                    replica.breaker.failed(FOREIGN_COOLDOWN)
                return None
            metrics.LAG.labels(replica.name).set(max(0, fence.lsn - replayed.lsn))
            if replayed.lsn >= fence.lsn:
                replica.breaker.succeeded()
                metrics.FENCE_PASSED.inc()
                return rows
            if time.monotonic() > caught_up_by:
                replica.breaker.failed(LAG_COOLDOWN)
                metrics.FENCE_LAGGING.inc()
                return None
            metrics.FENCE_POLLS.inc()
            gevent.sleep(CATCH_UP_INTERVAL)
