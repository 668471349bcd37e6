"""How long clients went without an answer of a kind."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple

from tests.support.promise import Operation


def longest_gap(
    history: Iterable[Operation], begin: float, end: float, counts: Callable[[Operation], bool]
) -> float:
    """The longest time between `begin` and `end` in which no operation ended that counts."""
    ends = sorted(o.end for o in history if begin < o.end < end and counts(o))
    return max(after - before for before, after in pairwise([begin, *ends, end]))


class Gaps(NamedTuple):
    """The longest times, in seconds, without an answer, of all clients together."""

    #: Without a 204 for a PUT.
    put: float
    #: Without a 200, or a 404 for whom nobody has stored, that does not say that it may be stale.
    get: float
    #: Without any 200 or 404.
    any_get: float

    @classmethod
    def of(cls, history: list[Operation], begin: float, end: float) -> "Gaps":
        return cls(
            longest_gap(history, begin, end, lambda o: o.method == "PUT" and o.status == 204),
            longest_gap(history, begin, end, lambda o: _found(o) and not o.stale),
            longest_gap(history, begin, end, _found),
        )

    def __str__(self) -> str:
        return (
            f"{self.put:.1f} s without a PUT that was acknowledged,"
            f" {self.get:.1f} s without a GET that was answered as usual,"
            f" {self.any_get:.1f} s without a GET that was answered"
        )


def _found(operation: Operation) -> bool:
    return operation.method == "GET" and operation.status in (200, 404)
