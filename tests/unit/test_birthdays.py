from collections.abc import Iterator
from datetime import date, timedelta

import pytest
from hypothesis import example, given
from hypothesis.strategies import dates

from hello.birthdays import anniversary, days_until_birthday

DAY = timedelta(days=1)


def celebrates(born: date, day: date) -> bool:
    """The rule in other words: who was born on 29 February celebrates at February's end."""
    if (born.month, born.day) == (2, 29):
        return day.month == 2 and (day + DAY).month == 3
    return (day.month, day.day) == (born.month, born.day)


def days_from(first: date, until: date) -> Iterator[date]:
    while first < until:
        yield first
        first += DAY


@pytest.mark.parametrize(
    ("born", "today", "days"),
    [
        ("1990-05-17", "2026-05-17", 0),
        ("1990-05-17", "2026-05-16", 1),
        ("1990-05-17", "2026-05-18", 364),
        ("1990-01-01", "2025-12-31", 1),
        ("1990-12-31", "2026-01-01", 364),
        # A 29 February lies between.
        ("1990-05-17", "2023-05-18", 365),
        ("1990-03-01", "2024-02-28", 2),
        ("1990-03-01", "2023-02-28", 1),
        # Born on 29 February: leap years and common ones.
        ("2000-02-29", "2024-02-28", 1),
        ("2000-02-29", "2024-02-29", 0),
        ("2000-02-29", "2024-03-01", 364),
        ("2000-02-29", "2023-02-27", 1),
        ("2000-02-29", "2023-02-28", 0),
        ("2000-02-29", "2023-03-01", 365),
        # Born on 28 February: never moved.
        ("2000-02-28", "2024-02-28", 0),
        ("2000-02-28", "2024-02-29", 365),
        # 1900 and 2100 are common years, 2000 is not.
        ("1896-02-29", "1900-02-28", 0),
        ("1896-02-29", "1900-03-01", 364),
        ("1896-02-29", "2000-02-28", 1),
        ("2096-02-29", "2100-02-28", 0),
        ("2096-02-29", "2100-03-01", 364),
        # Born today, in a time zone that is ahead of today's.
        ("2026-05-18", "2026-05-17", 1),
    ],
)
def test_days_until_birthday(born: str, today: str, days: int) -> None:
    assert days_until_birthday(date.fromisoformat(born), date.fromisoformat(today)) == days


@pytest.mark.parametrize(
    ("year", "expected"),
    [
        (1900, date(1900, 2, 28)),
        (2000, date(2000, 2, 29)),
        (2023, date(2023, 2, 28)),
        (2024, date(2024, 2, 29)),
        (2100, date(2100, 2, 28)),
    ],
)
def test_29_february_moves_to_the_28th_in_common_years(year: int, expected: date) -> None:
    assert anniversary(date(1896, 2, 29), year) == expected


@pytest.mark.parametrize("year", [1900, 2023, 2024, 2100])
def test_every_birthday_seen_from_every_day_of_a_year(year: int) -> None:
    # Backwards from the end of the next year, which holds one birthday of everybody.
    days = list(days_from(date(year, 1, 1), date(year + 2, 1, 1)))[::-1]
    for born in days_from(date(1896, 1, 1), date(1897, 1, 1)):
        left = 0
        for day in days:
            left = 0 if celebrates(born, day) else left + 1
            if day.year == year:
                assert days_until_birthday(born, day) == left, (born, day)


@given(born=dates(), today=dates(max_value=date(9998, 12, 31)))
@example(born=date(1904, 2, 29), today=date(1900, 3, 1))
@example(born=date(2096, 2, 29), today=date(2099, 3, 1))
def test_the_first_birthday_that_a_walk_from_today_meets(born: date, today: date) -> None:
    walk = days_from(today, today + 366 * DAY)
    expected = next(number for number, day in enumerate(walk) if celebrates(born, day))
    assert days_until_birthday(born, today) == expected
