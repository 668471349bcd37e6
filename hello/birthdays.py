"""The next birthday and the days left until it: dates in, numbers out."""

from calendar import isleap
from datetime import date


def anniversary(born: date, year: int) -> date:
    """The day on which somebody born on `born` celebrates in `year`.

    Somebody born on 29 February celebrates on 28 February in a common year, the
    rule of `java.time.MonthDay.atYear` and of PostgreSQL's `+ interval '1 year'`.
    """
    if born.month == 2 and born.day == 29 and not isleap(year):
        return date(year, 2, 28)
    return born.replace(year=year)


def days_until_birthday(born: date, today: date) -> int:
    """Days from `today` until the next birthday: 0 on the day itself, 365 at most."""
    over = (born.month, born.day) < (today.month, today.day)
    return (anniversary(born, today.year + over) - today).days
