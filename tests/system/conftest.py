from collections.abc import Iterator
from itertools import count

import pytest

from tests.support.postgres import Cluster
from tests.support.processes import eventually
from tests.support.proxy import Proxy
from tests.support.service import migrate
from tests.support.stack import Stack

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


def _migrate(cluster: Cluster, database: str) -> str:
    done = migrate(cluster.uri(database))
    assert done.returncode == 0, done.stderr
    # A new generation of the cache is not used at once.
    cluster.query("UPDATE cache_use SET suspended_until = CURRENT_TIMESTAMP", database)
    return database


@pytest.fixture
def own_database(shared_cluster: Cluster, empty_database: str) -> str:
    """The name of a new database with the current schema, which a test may change."""
    return _migrate(shared_cluster, empty_database)


@pytest.fixture(scope="session")
def _database(shared_cluster: Cluster) -> str:
    shared_cluster.query("CREATE DATABASE hello")
    return _migrate(shared_cluster, "hello")


@pytest.fixture
def database(shared_cluster: Cluster, _database: str) -> str:
    """The name of a database with the current schema, without users and connections."""
    eventually(lambda: not shared_cluster.sessions(_database))
    shared_cluster.query("TRUNCATE users", _database)
    return _database


@pytest.fixture
def proxy(shared_cluster: Cluster) -> Iterator[Proxy]:
    """A network path to the shared server that can be made to fail."""
    with Proxy(shared_cluster.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def shared_stack() -> Iterator[Stack]:
    with Stack(replicas=1, cache=True) as stack:
        yield stack


@pytest.fixture
def stack(shared_stack: Stack) -> Stack:
    """A primary, a replica and a cache, all well and empty; a test may stop any of them."""
    shared_stack.heal()
    shared_stack.empty()
    return shared_stack
