from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from hello.database.sqlite import SQLiteMemory

pytest_plugins = ["tests.support.skips"]

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
    """A database in memory, with the current schema."""
    memory = SQLiteMemory()
    yield memory
    memory.close()
