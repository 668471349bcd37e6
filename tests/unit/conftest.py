import time
from collections.abc import Iterator

import peewee
import pytest
from hypothesis import HealthCheck, settings

from hello.database import schema
from hello.database.sqlite import SQLiteMemory

# The same examples in every run: a failure in CI is a failure on the desk.
# Fixtures are shared by the examples of a test on purpose.
settings.register_profile(
    "reproducible",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("reproducible")


@pytest.fixture
def deadline() -> float:
    """A deadline that no test reaches unless something hangs."""
    return time.monotonic() + 10


@pytest.fixture
def empty() -> Iterator[peewee.Database]:
    """A database without any table."""
    database = peewee.SqliteDatabase(":memory:")
    database.connect()
    yield database
    database.close()


@pytest.fixture
def database(empty: peewee.Database) -> peewee.Database:
    """A database with the current schema."""
    schema.upgrade(empty)
    return empty


@pytest.fixture
def memory() -> Iterator[SQLiteMemory]:
    route = SQLiteMemory()
    yield route
    route.close()
