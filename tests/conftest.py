from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from hello.database.sqlite import SQLiteConnection, SQLiteMemory

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
def memory() -> Iterator[SQLiteMemory]:
    """A route to a database in memory, with the current schema."""
    route = SQLiteMemory()
    yield route
    # The kept connection ignores its own `close`.
    SQLiteConnection.close(route.connect(0))
