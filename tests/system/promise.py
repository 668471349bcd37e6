"""The promise, as a check of what clients saw:

    A GET that begins after a PUT was answered 204 sees that date or a later one,
    whichever worker answers; and a 204 is never lost.

Clients record every request as an `Operation`. No date is put to a key for a second time
but to repeat a PUT whose outcome is not known, so that the date which a GET saw says which
PUT it saw. Whatever the order in which PUTs that overlap took effect, a date must not be
seen once it is *overtaken*: by a PUT that began after the date's own PUT had ended, and
that was acknowledged before the GET began. A PUT ends with its answer, be it a 204 or a 503.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from itertools import accumulate, pairwise
from math import inf
from typing import NamedTuple


class Operation(NamedTuple):
    """One request of one client. Times are of one clock that all clients share."""

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


def violations(
    history: Iterable[Operation], rows: Mapping[str, Row] | None = None
) -> list[Violation]:
    """Every operation that breaks the promise; `rows` is the table after the last of them."""
    keys: dict[str, tuple[list[Operation], list[Operation]]] = defaultdict(lambda: ([], []))
    found: list[Violation] = []
    for operation in history:
        puts, gets = keys[operation.key]
        if operation.method == "PUT":
            puts.append(operation)
            expected = operation.status in (204, 503, None)
        else:
            if operation.status in (200, 404) and not operation.stale:
                gets.append(operation)
            expected = operation.status in (200, 404, 503, None)
        if not expected:
            found.append(Violation("an answer that no fault explains", operation))
    for key, (puts, gets) in keys.items():
        register = _Register(puts)
        found += filter(None, map(register.check, gets))
        if rows is not None:
            found += register.check_row(key, rows.get(key))
    return found


class _Register:
    """The PUTs of one key."""

    def __init__(self, puts: list[Operation]) -> None:
        self._puts: dict[Hashable, list[Operation]] = defaultdict(list)
        for put in puts:
            self._puts[put.value].append(put)
        self._acknowledged = sorted(
            (put for put in puts if put.status == 204), key=lambda put: put.end
        )
        self._ends = [put.end for put in self._acknowledged]
        # Of the PUTs that were acknowledged up to each, the one that began last.
        self._latest = list(
            accumulate(self._acknowledged, lambda a, b: max(a, b, key=lambda put: put.start))
        )

    def check(self, get: Operation) -> Violation | None:
        acknowledged_before = bisect_left(self._ends, get.start)
        latest = self._latest[acknowledged_before - 1] if acknowledged_before else None
        if get.value is None:
            return Violation("an entry was not found", get, latest) if latest else None
        puts = [put for put in self._puts.get(get.value, ()) if put.start < get.end]
        if not puts:
            return Violation("a date that nobody put", get)
        if latest and max(map(_effective, puts)) < latest.start:
            return Violation("a date that was overtaken", get, latest)
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
        if version < len({put.value for put in self._acknowledged}):
            return [Violation("fewer versions than dates that were acknowledged", read)]
        return []


def _effective(put: Operation) -> float:
    """When a PUT has taken effect at the latest; one that got no answer may do so at any time.

    After a 503 it does no more (docs/decisions/unknown-outcome.md).
    """
    return inf if put.status is None else put.end
