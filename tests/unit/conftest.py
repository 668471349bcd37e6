import time
from collections.abc import Iterator

import peewee
import pytest

from hello.database import schema


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
