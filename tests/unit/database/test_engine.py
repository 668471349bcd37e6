"""Which engine it is, and what is sent to it."""

import re
from itertools import chain, repeat

import pytest

from hello.database import statements
from hello.database.engine import (
    AURORA,
    CITUS,
    COCKROACHDB,
    ENGINES,
    POSTGRESQL,
    YUGABYTEDB,
    Engine,
    identify,
    shares_sessions,
)

POSTGRESQL_18 = "PostgreSQL 18.6 on x86_64-pc-linux-gnu, compiled by gcc"


@pytest.mark.parametrize(
    ("version", "has_citus", "is_aurora", "engine"),
    [
        (POSTGRESQL_18, False, False, POSTGRESQL),
        (POSTGRESQL_18, True, False, CITUS),
        (POSTGRESQL_18, False, True, AURORA),
        ("CockroachDB CCL v25.2.0 (x86_64-pc-linux-gnu)", False, False, COCKROACHDB),
        ("PostgreSQL 15.12-YB-2025.1.0.0-b0 on x86_64", False, False, YUGABYTEDB),
        ("Something else 1.0", False, False, POSTGRESQL),
    ],
)
def test_an_engine_is_known_by_its_answer(
    version: str, has_citus: bool, is_aurora: bool, engine: Engine
) -> None:
    assert identify(version, has_citus, is_aurora) is engine
    assert ENGINES[engine.name] is engine


@pytest.mark.parametrize(
    ("one", "another", "shared"),
    [
        ([1], [2], False),
        # The other got the process that was free, or this one got another, at once or later.
        ([1], [1], True),
        ([1], [2, 1], True),
        ([1, 2], [3], True),
        ([1, 1, 1, 1, 2], [3], True),
        # Others use the pooler: it is the other connection alone that sees it.
        ([1], [2, 3, 4, 5, 1], True),
    ],
)
def test_a_pooler_that_shares_sessions_is_found(
    one: list[int], another: list[int], shared: bool
) -> None:
    ones, others = (chain(numbers, repeat(numbers[-1])) for numbers in (one, another))
    assert shares_sessions(lambda: next(ones), lambda: next(others)) is shared


#: Functions that look at a clock, at settings, or write to the log.
LOOKS = re.compile("clock_timestamp|CURRENT_TIMESTAMP|current_setting|pg_logical_emit_message")


def test_where_no_row_may_be_looked_at_the_upsert_looks_once_at_its_beginning() -> None:
    for engine in ENGINES.values():
        save = statements.of(engine).save
        _, _, on_conflict = save.partition("ON CONFLICT")
        assert bool(LOOKS.search(on_conflict)) is engine.looks_at_each_row
    save = statements.of(CITUS).save
    beginning, _, _ = save.partition("ON CONFLICT")
    assert beginning.count("clock_timestamp()") == 1
    # No subquery looks at the rows of the function.
    assert "(SELECT" not in beginning.replace("AS MATERIALIZED (SELECT", "")


def test_where_no_row_may_be_looked_at_no_change_of_another_table_looks_at_the_clock() -> None:
    forms = statements.of(CITUS)
    for change in (forms.forget, forms.suspend_cache):
        assert "clock_timestamp" not in change
        _, _, returned = change.partition("RETURNING")
        assert "timestamp" not in returned
