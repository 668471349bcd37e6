"""The checker of the promise, on histories that are known to keep it or to break it."""

import itertools

import pytest

from tests.support.promise import Operation, Row, violations


def put(
    start: float, end: float, value: str, status: int | None = 204, key: str = "a"
) -> Operation:
    return Operation(start, end, "writer", "PUT", key, value, status)


def forget(start: float, end: float, status: int | None = 204, key: str = "a") -> Operation:
    return Operation(start, end, "forgetter", "FORGET", key, None, status)


def restore(start: float, end: float, value: str | None, status: int = 204) -> Operation:
    return Operation(start, end, "operator", "RESTORE", "a", value, status)


def get(
    start: float,
    end: float,
    value: str | None,
    *,
    status: int | None = None,
    stale: bool = False,
    key: str = "a",
) -> Operation:
    status = status or (404 if value is None else 200)
    return Operation(start, end, "reader", "GET", key, value, status, stale)


#: Time runs from left to right. Each history is checked in every order of its operations.
KEPT = {
    "nothing": [],
    "never put": [get(1, 2, None)],
    "the last date": [put(1, 2, "x"), get(3, 4, "x")],
    "before the PUT ended, the old": [put(1, 2, "x"), put(3, 6, "y"), get(4, 5, "x")],
    "before the PUT ended, the new": [put(1, 2, "x"), put(3, 6, "y"), get(4, 5, "y")],
    "before the PUT ended, the new and then the old": [
        put(1, 2, "x"),
        put(3, 8, "y"),
        get(4, 5, "y"),
        get(6, 7, "x"),
    ],
    "begun before the PUT ended": [put(1, 2, "x"), put(3, 5, "y"), get(4, 6, "x")],
    "begun when the PUT ended": [put(1, 2, "x"), put(3, 5, "y"), get(5, 6, "x")],
    "not found while the first PUT runs": [put(1, 4, "x"), get(2, 3, None)],
    "a later date than the last acknowledged": [
        put(1, 2, "x"),
        put(3, 9, "y"),
        get(4, 5, "y"),
    ],
    "two that overlap, in one order": [put(1, 4, "x"), put(2, 3, "y"), get(5, 6, "x")],
    "two that overlap, in the other": [put(1, 4, "x"), put(2, 3, "y"), get(5, 6, "y")],
    "overlapping an overtaker is not enough": [
        put(1, 3, "x"),
        put(2, 5, "y"),
        put(4, 6, "z"),
        get(7, 8, "y"),
    ],
    "refused, and not seen": [put(1, 2, "x"), put(3, 4, "y", 503), get(5, 6, "x")],
    "refused, and seen": [put(1, 2, "x"), put(3, 4, "y", 503), get(5, 6, "y")],
    "refused, and seen after a date that it overlapped": [
        put(1, 2, "x"),
        put(3, 6, "y", 503),
        put(5, 7, "z"),
        get(8, 9, "y"),
    ],
    "refused, and overtaken": [
        put(1, 2, "x"),
        put(3, 4, "y", 503),
        put(5, 6, "z"),
        get(7, 8, "z"),
    ],
    "refused, and sent again after another": [
        put(1, 2, "y", 503),
        put(3, 4, "z"),
        put(5, 6, "y"),
        get(7, 8, "y"),
    ],
    "unanswered, and seen much later": [
        put(1, 2, "x"),
        put(3, 4, "y", None),
        get(5, 6, "x"),
        put(7, 8, "z"),
        get(9, 10, "y"),
    ],
    "repeated until acknowledged": [put(1, 2, "x", 503), put(3, 4, "x"), get(5, 6, "x")],
    "old, and says so": [put(1, 2, "x"), put(3, 4, "y"), get(5, 6, "x", stale=True)],
    "missing, and says so": [put(1, 2, "x"), get(3, 4, None, stale=True)],
    "no answer": [put(1, 2, "x"), get(3, 4, None, status=503)],
    "of another key": [put(1, 2, "x"), put(3, 4, "y", key="b"), get(5, 6, "x")],
    "forgotten": [put(1, 2, "x"), forget(3, 4), get(5, 6, None)],
    "before it is forgotten, the date": [put(1, 2, "x"), forget(3, 6), get(4, 5, "x")],
    "before it is forgotten, nobody": [put(1, 2, "x"), forget(3, 6), get(4, 5, None)],
    "forgotten, and put anew": [put(1, 2, "x"), forget(3, 4), put(5, 6, "y"), get(7, 8, "y")],
    "forgotten beside a PUT, in one order": [put(1, 4, "x"), forget(2, 3), get(5, 6, "x")],
    "forgotten beside a PUT, in the other": [put(1, 4, "x"), forget(2, 3), get(5, 6, None)],
    "forgotten, perhaps, and not": [put(1, 2, "x"), forget(3, 4, 503), get(5, 6, "x")],
    "forgotten, perhaps, and so": [put(1, 2, "x"), forget(3, 4, 503), get(5, 6, None)],
    "forgotten twice": [put(1, 2, "x"), forget(3, 4), forget(5, 6, 404), get(7, 8, None)],
    "forgotten twice, the later time after another date": [
        put(1, 2, "x"),
        forget(3, 4),
        put(5, 6, "y"),
        forget(7, 8),
        get(9, 10, None),
    ],
    "forgotten before anybody was there": [forget(1, 2, 404), get(3, 4, None)],
    "restored, and seen": [put(1, 2, "x"), put(3, 4, "y"), restore(5, 6, "x"), get(7, 8, "x")],
    "restored, and the date before it is seen": [
        put(1, 2, "x"),
        put(3, 4, "y"),
        restore(5, 6, "x"),
        get(7, 8, "y"),
    ],
    "restored, both seen in turn, and put anew": [
        put(1, 2, "x"),
        put(3, 4, "y"),
        restore(5, 6, "x"),
        get(7, 8, "x"),
        get(9, 10, "y"),
        put(11, 12, "z"),
        get(13, 14, "z"),
    ],
    "restored beside a PUT, in one order": [
        put(1, 2, "x"),
        put(3, 5, "y"),
        restore(4, 6, "x"),
        get(7, 8, "x"),
    ],
    "restored beside a PUT, in the other": [
        put(1, 2, "x"),
        put(3, 6, "y"),
        restore(4, 5, "x"),
        get(7, 8, "y"),
    ],
    "restored, perhaps": [put(1, 2, "x"), put(3, 4, "y"), restore(5, 6, "x", 503), get(7, 8, "x")],
    "restored after it was forgotten": [
        put(1, 2, "x"),
        forget(3, 4),
        restore(5, 6, "x"),
        get(7, 8, "x"),
    ],
    "deleted by an operator, and seen": [put(1, 2, "x"), restore(3, 4, None), get(5, 6, "x")],
    "deleted by an operator, and not found": [
        put(1, 2, "x"),
        restore(3, 4, None),
        get(5, 6, None),
    ],
    "of another key that was forgotten": [put(1, 2, "x"), forget(3, 4, key="b"), get(5, 6, "x")],
}

BROKEN = {
    "overtaken": [put(1, 2, "x"), put(3, 4, "y"), get(5, 6, "x")],
    "overtaken long ago": [put(1, 2, "x"), put(3, 4, "y"), put(5, 6, "z"), get(7, 8, "x")],
    "overtaken by one, while another is under way": [
        put(1, 2, "x"),
        put(3, 4, "y"),
        put(5, 9, "z"),
        get(6, 7, "x"),
    ],
    "overtaken in the middle of two others": [
        put(1, 2, "x"),
        put(3, 4, "y"),
        put(3.5, 9, "z"),
        get(5, 6, "x"),
    ],
    "overtaken, though another that overlapped it was acknowledged later": [
        put(1, 3, "x"),
        put(4, 5, "y"),
        put(2, 6, "z"),
        get(7, 8, "x"),
    ],
    "refused, and seen after another": [
        put(1, 2, "x"),
        put(3, 4, "y", 503),
        put(5, 6, "z"),
        get(7, 8, "y"),
    ],
    "refused, repeated, acknowledged, and seen after another": [
        put(1, 2, "y", 503),
        put(3, 4, "y"),
        put(5, 6, "z"),
        get(7, 8, "y"),
    ],
    "refused twice, and the first seen after another": [
        put(1, 2, "x", 503),
        put(3, 4, "y", 503),
        put(5, 6, "z"),
        get(7, 8, "x"),
    ],
    "not found after a PUT": [put(1, 2, "x"), get(3, 4, None)],
    "a date out of thin air": [put(1, 2, "x"), get(3, 4, "y")],
    "a date of another key": [put(1, 2, "x"), put(1, 2, "y", key="b"), get(3, 4, "y")],
    "a date from the future": [put(1, 2, "x"), get(3, 4, "y"), put(5, 6, "y")],
    "a server error": [get(1, 2, None, status=500)],
    "a PUT that was turned down": [put(1, 2, "x", 400)],
    "a PUT that was answered like a GET": [put(1, 2, "x", 200)],
    "forgotten, and seen": [put(1, 2, "x"), forget(3, 4), get(5, 6, "x")],
    "forgotten, put anew, and not found": [
        put(1, 2, "x"),
        forget(3, 4),
        put(5, 6, "y"),
        get(7, 8, None),
    ],
    "forgotten, put anew, and the old is seen": [
        put(1, 2, "x"),
        forget(3, 4),
        put(5, 6, "y"),
        get(7, 8, "x"),
    ],
    "nobody to forget after a PUT": [put(1, 2, "x"), forget(3, 4, 404)],
    "an erasure that crashed": [put(1, 2, "x"), forget(3, 4, -11)],
    "restored, put anew, and the date before it is seen": [
        put(1, 2, "x"),
        put(3, 4, "y"),
        restore(5, 6, "x"),
        put(7, 8, "z"),
        get(9, 10, "y"),
    ],
    "restored, put anew, and what was restored is seen": [
        put(1, 2, "x"),
        put(3, 4, "y"),
        restore(5, 6, "x"),
        put(7, 8, "z"),
        get(9, 10, "x"),
    ],
    "restored, and a date is seen that it did not bring back": [
        put(1, 2, "x"),
        put(3, 4, "y"),
        put(5, 6, "z"),
        restore(7, 8, "y"),
        get(9, 10, "x"),
    ],
    "deleted by an operator, put anew, and the old is seen": [
        put(1, 2, "x"),
        restore(3, 4, None),
        put(5, 6, "y"),
        get(7, 8, "x"),
    ],
    "deleted by an operator, put anew, and not found": [
        put(1, 2, "x"),
        restore(3, 4, None),
        put(5, 6, "y"),
        get(7, 8, None),
    ],
    "deleted by an operator, forgotten, and seen": [
        put(1, 2, "x"),
        restore(3, 4, None),
        forget(5, 6, 404),
        get(7, 8, "x"),
    ],
    "a stale answer is no excuse for the next": [
        put(1, 2, "x"),
        put(3, 4, "y"),
        get(5, 6, "x", stale=True),
        get(7, 8, "x"),
    ],
}


@pytest.mark.parametrize("history", KEPT.values(), ids=KEPT.keys())
def test_a_history_that_keeps_the_promise(history: list[Operation]) -> None:
    for ordered in itertools.permutations(history):
        assert violations(ordered) == []


@pytest.mark.parametrize("history", BROKEN.values(), ids=BROKEN.keys())
def test_a_history_that_breaks_the_promise(history: list[Operation]) -> None:
    for ordered in itertools.permutations(history):
        assert len(violations(ordered)) == 1


def test_a_violation_shows_the_read_and_the_write_that_it_missed() -> None:
    history = [put(1, 2, "x"), put(3, 4, "y"), put(5, 6, "z"), get(7, 8, "x")]
    [violation] = violations(history)
    assert violation.operation == history[-1]
    assert violation.write == history[-2]


def test_every_violation_is_reported() -> None:
    history = [put(1, 2, "x"), put(3, 4, "y"), *(get(5, 6, "x") for _ in range(10))]
    assert len(violations(history)) == 10


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        (Row("y", 2), True),
        (Row("y", 3), True),
        (Row("x", 2), False),
        (Row("z", 3), False),
        (Row("y", 1), False),
        (None, False),
    ],
    ids=str,
)
def test_what_was_acknowledged_is_in_the_database(row: Row | None, kept: bool) -> None:
    rows = {"a": row} if row else {}
    found = violations([put(1, 2, "x"), put(3, 4, "y")], rows)
    assert (found == []) == kept
    assert all(violation.operation.client == "the database" for violation in found)


@pytest.mark.parametrize("row", [Row("x", 1), Row("y", 2)], ids=str)
def test_a_put_of_unknown_outcome_may_be_in_the_database_or_not(row: Row) -> None:
    history = [put(1, 2, "x"), put(3, 4, "y", 503)]
    assert violations(history, {"a": row}) == []


def test_a_put_of_unknown_outcome_may_not_replace_a_later_one() -> None:
    refused = [put(1, 2, "x"), put(3, 4, "y", 503), put(5, 6, "z")]
    assert violations(refused, {"a": Row("z", 3)}) == []
    [violation] = violations(refused, {"a": Row("y", 3)})
    assert violation.write == refused[-1]
    unanswered = [put(1, 2, "x"), put(3, 4, "y", None), put(5, 6, "z")]
    assert violations(unanswered, {"a": Row("y", 3)}) == []


def test_a_put_of_unknown_outcome_may_be_the_only_one() -> None:
    history = [put(1, 2, "x", None)]
    assert violations(history, {}) == []
    assert violations(history, {"a": Row("x", 1)}) == []


@pytest.mark.parametrize("row", [Row("x", 1), Row("y", 1)], ids=str)
def test_of_two_puts_that_overlap_one_may_never_be_seen(row: Row) -> None:
    # Two writers of one user can share a statement, which stores one date.
    assert violations([put(1, 4, "x"), put(2, 3, "y")], {"a": row}) == []


def test_a_row_that_nobody_put_is_not_ours() -> None:
    assert violations([put(1, 2, "x")], {"a": Row("x", 1), "b": Row("y", 7)}) == []


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        (Row("z", 1), True),
        (Row("z", 4), True),
        (Row("y", 2), False),
        (Row("x", 1), False),
        (None, False),
    ],
    ids=str,
)
def test_a_row_that_was_forgotten_begins_anew(row: Row | None, kept: bool) -> None:
    history = [put(1, 2, "x"), put(3, 4, "y"), forget(5, 6), put(7, 8, "z")]
    assert (violations(history, {"a": row} if row else {}) == []) == kept


@pytest.mark.parametrize(("row", "kept"), [(None, True), (Row("x", 1), False)], ids=str)
def test_a_row_that_was_forgotten_is_gone(row: Row | None, kept: bool) -> None:
    history = [put(1, 2, "x"), forget(3, 4)]
    assert (violations(history, {"a": row} if row else {}) == []) == kept


def test_after_an_erasure_the_versions_count_again() -> None:
    history = [forget(1, 2, 404), put(3, 4, "x"), put(5, 6, "y")]
    assert violations(history, {"a": Row("y", 2)}) == []
    assert len(violations(history, {"a": Row("y", 1)})) == 1


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        (Row("z", 2), True),
        (Row("z", 1), True),
        (Row("x", 1), False),
        (Row("y", 2), False),
        (None, False),
    ],
    ids=str,
)
def test_a_row_that_was_restored_takes_the_next_date(row: Row | None, kept: bool) -> None:
    history = [put(1, 2, "x"), put(3, 4, "y"), restore(5, 6, "x"), put(7, 8, "z")]
    assert (violations(history, {"a": row} if row else {}) == []) == kept


@pytest.mark.parametrize(
    ("value", "row"), [("x", Row("x", 1)), ("x", Row("y", 2)), (None, None)], ids=str
)
def test_what_was_restored_may_be_in_the_database(value: str | None, row: Row | None) -> None:
    history = [put(1, 2, "x"), put(3, 4, "y"), restore(5, 6, value)]
    assert violations(history, {"a": row} if row else {}) == []
