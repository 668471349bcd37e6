from collections.abc import Iterator
from itertools import count

import pytest

from tests.system.postgres import Cluster
from tests.system.service import migrate

_numbers = count(1)


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """A PostgreSQL server for tests that do it no harm."""
    cluster = Cluster().create().start()
    yield cluster
    cluster.destroy()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server that a test may kill."""
    cluster = Cluster().create().start()
    yield cluster
    cluster.destroy()


@pytest.fixture
def empty_database(shared_cluster: Cluster) -> str:
    """The name of a new database on the shared server."""
    name = f"test_{next(_numbers)}"
    shared_cluster.query(f"CREATE DATABASE {name}")
    return name


@pytest.fixture
def database(shared_cluster: Cluster, empty_database: str) -> str:
    """The name of a new database with the current schema."""
    done = migrate(shared_cluster.uri(empty_database))
    assert done.returncode == 0, done.stderr
    return empty_database
