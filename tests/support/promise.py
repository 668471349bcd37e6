"""The promise, as a check of what clients saw:

    A GET that begins after a PUT was answered 204 sees that date or a later one,
    whichever worker answers; and a 204 is never lost.

Clients record every request as an `Operation`. No date is put to a key for a second time
but to repeat a PUT whose outcome is not known, so that the date which a GET saw says which
PUT it saw. Whatever the order in which PUTs that overlap took effect, a date must not be
seen once it is *overtaken*: by a PUT that began after the date's own PUT had ended, and
that was acknowledged before the GET began. A PUT ends with its answer, be it a 204 or a 503.

FORGET writes too: that there is no entry. So it overtakes dates, and is overtaken by them. It
is acknowledged if it is 204, or 404: then there was no entry, and it has read that as well.

RESTORE is what an operator does to the table behind the service's back: a row is put back as it
was, or deleted. It tells no cache, so it overtakes nothing: both what it stored and what was
there before may be seen. It is overtaken like every other write: by the next PUT or FORGET that
begins after it, whatever version the row has then. It is 503 if the database failed meanwhile.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from itertools import accumulate, pairwise
from math import inf
from typing import NamedTuple


class Operation(NamedTuple):
    """One request of one client, one FORGET or one RESTORE. Times are of one clock."""

    start: float
    end: float
    client: str
    method: str
    key: str
    #: What was put, or what was found; None if there was no entry.
    value: Hashable
    #: None if there was no answer.
    status: int | None
    #: The answer says of itself that it may be old: it promises nothing.
    stale: bool = False


class Row(NamedTuple):
    """What the database holds of a key in the end."""

    value: Hashable
    version: int


class Violation(NamedTuple):
    reason: str
    #: What shows it, and the PUT that it contradicts, if that is one.
    operation: Operation
    write: Operation | None = None


#: What may be answered, whatever happens; None is no answer.
EXPECTED = {
    "PUT": (204, 503, None),
    "GET": (200, 404, 503, None),
    "FORGET": (204, 404, 503, None),
    "RESTORE": (204, 503),
}


def violations(
    history: Iterable[Operation], rows: Mapping[str, Row] | None = None
) -> list[Violation]:
    """Every operation that breaks the promise; `rows` is the table after the last of them."""
    keys: dict[str, tuple[list[Operation], list[Operation]]] = defaultdict(lambda: ([], []))
    found: list[Violation] = []
    for operation in history:
        writes, reads = keys[operation.key]
        if operation.method != "GET":
            writes.append(operation)
        if operation.status not in EXPECTED[operation.method]:
            found.append(Violation("an answer that no fault explains", operation))
        elif operation.status in (200, 404) and not operation.stale:
            # A FORGET too, that found nobody.
            reads.append(operation)
    for key, (writes, reads) in keys.items():
        register = _Register(writes)
        found += filter(None, map(register.check, reads))
        if rows is not None:
            found += register.check_row(key, rows.get(key))
    return found


class _Register:
    """What was written to one key."""

    def __init__(self, writes: list[Operation]) -> None:
        self._writes: dict[Hashable, list[Operation]] = defaultdict(list)
        for write in writes:
            self._writes[write.value].append(write)
        self._restores = [write for write in writes if write.method == "RESTORE"]
        self._acknowledged = sorted(filter(_acknowledged, writes), key=lambda write: write.end)
        self._ends = [write.end for write in self._acknowledged]
        # Of the writes that were acknowledged up to each, the one that began last.
        self._latest = list(accumulate(self._acknowledged, _later))

    def check(self, read: Operation) -> Violation | None:
        acknowledged_before = bisect_left(self._ends, read.start)
        latest = self._latest[acknowledged_before - 1] if acknowledged_before else None
        writes = [
            write
            for write in self._writes.get(read.value, ())
            if write.start < read.end and write is not read
        ]
        if not writes and read.value is not None:
            return Violation("a date that nobody put", read)
        # At first there is no entry.
        if latest and max(map(_effective, writes), default=-inf) < latest.start:
            if read.value is None:
                return Violation("an entry was not found", read, latest)
            how = "overtaken" if latest.method == "PUT" else "forgotten"
            return Violation(f"a date that was {how}", read, latest)
        return None

    def check_row(self, key: str, row: Row | None) -> list[Violation]:
        value, version = row or Row(None, 0)
        read = Operation(inf, inf, "the database", "GET", key, value, 200 if row else 404)
        violation = self.check(read)
        if violation:
            return [violation]
        # Of writes that overlap one may replace the other unseen. Where none do, each date
        # that was acknowledged has raised the version.
        if any(later.start < earlier.end for earlier, later in pairwise(self._acknowledged)):
            return []
        # An entry that was forgotten begins anew, and one that was restored anywhere.
        resets = [*self._writes.get(None, ()), *self._restores]
        anew = max(map(_effective, resets), default=-inf)
        dates = {put.value for put in self._acknowledged if put.start >= anew}
        if version < len(dates - {None}):
            return [Violation("fewer versions than dates that were acknowledged", read)]
        return []


def _later(one: Operation, other: Operation) -> Operation:
    """The one that began later."""
    return max(one, other, key=lambda write: write.start)


def _acknowledged(write: Operation) -> bool:
    """Whether everybody who reads later is promised to see it, or something later."""
    return write.method != "RESTORE" and write.status in (204, 404)


def _effective(write: Operation) -> float:
    """When a write has taken effect at the latest; one that got no answer may do so at any time.

    After a 503 it does no more (docs/decisions/unknown-outcome.md).
    """
    return inf if write.status is None else write.end
