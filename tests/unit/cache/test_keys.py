from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hello.cache.keys import record_of, value_of
from hello.database.models import NO_SUCH_USER, Record

#: A strategy for each field, made of its type, so that one that is added is tried as well.
FIELDS = dict.fromkeys(Record._fields, ...) | {
    "date_of_birth": st.dates(),
    "stale": st.just(False),
}


@given(record=st.builds(Record, **FIELDS))
def test_every_field_of_a_record_is_read_as_it_was_stored(record: Record) -> None:
    assert record_of(value_of(record)) == record


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v",
        "v|1|",
        "v|1|tomorrow",
        "v|one|1990-05-17",
        # With a part less: as a release without the last field stores it, which may serve beside.
        value_of(Record(date(1990, 5, 17), 1)).rpartition("|")[0],
        "w" + value_of(Record(date(1990, 5, 17), 1))[1:],
        "r|8f2805a70aa01953",  # a token
    ],
)
def test_what_is_no_value_of_this_form_is_none(text: str) -> None:
    assert record_of(text) is None


def test_nothing_is_stored_for_nobody() -> None:
    assert value_of(NO_SUCH_USER) == ""
