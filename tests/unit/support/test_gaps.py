from tests.support.gaps import Gaps, longest_gap
from tests.support.promise import Operation


def operation(method: str, end: float, status: int | None, *, stale: bool = False) -> Operation:
    return Operation(end - 0.1, end, "somebody", method, "alice", 1, status, stale)


def test_a_gap_is_between_two_answers_or_an_answer_and_the_begin_or_the_end() -> None:
    history = [operation("GET", end, 200) for end in (3.0, 1.0, 2.0)]
    assert longest_gap(history, 0, 5, lambda o: True) == 2.0
    assert longest_gap(history, 0.5, 3.5, lambda o: True) == 1.0
    assert longest_gap(history, 0, 5, lambda o: False) == 5.0


def test_an_answer_counts_for_its_own_gap_alone() -> None:
    history = [
        operation("PUT", 1, 204),
        operation("GET", 1, 200),
        operation("PUT", 3, 503),
        operation("GET", 3, 200, stale=True),
        operation("FORGET", 3, 204),
        operation("GET", 4, 404),
        operation("GET", 5, 503),
        operation("PUT", 6, 204),
    ]
    assert Gaps.of(history, 0, 6) == Gaps(5.0, 3.0, 2.0)
