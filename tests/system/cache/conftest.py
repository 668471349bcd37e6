"""Real servers for the cache, and who uses them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from hello.database.models import Generation
from tests.support.cache import Connect, Connection, G, history
from tests.support.processes import eventually
from tests.support.proxy import Proxy
from tests.support.valkey import Valkey
from tests.support.worker import Table, Worker
from tests.support.workload import Today


@pytest.fixture(scope="module")
def shared_valkey() -> Iterator[Valkey]:
    valkey = Valkey().start()
    yield valkey
    valkey.destroy()


@pytest.fixture
def valkey(shared_valkey: Valkey) -> Valkey:
    """An empty cache, for tests that do it no harm."""
    with shared_valkey.client as client:
        client.flushall()
        client.config_set("maxmemory", "0")
    return shared_valkey


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A cache that a test may kill."""
    # A replica that asks for a copy gets it at once.
    valkey = Valkey("--repl-diskless-sync-delay", "0").start()
    yield valkey
    valkey.destroy()


@pytest.fixture
def store(valkey: Valkey) -> Iterator[redis.Redis]:
    """A look at what the cache holds."""
    with valkey.client as client:
        yield client


@pytest.fixture
def connect(valkey: Valkey) -> Iterator[Connect]:
    """Open a connection to the cache as a lane does; the arguments change what is usual."""
    opened = []

    def connect(uri: str = valkey.uri, **options: Any) -> Connection:
        usual = {"timeout": 0.5, "lease": 5.0, "ttl": 60.0}
        connection = Connection(lambda: uri, **(usual | options))
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def reader(connect: Connect) -> Connection:
    return connect()


@pytest.fixture
def writer(connect: Connect) -> Connection:
    return connect()


@pytest.fixture
def another(connect: Connect) -> Connection:
    return connect()


@pytest.fixture
def follower(own_valkey: Valkey) -> Iterator[tuple[Valkey, Proxy]]:
    """A replica of the cache, and the path by which it follows."""
    follower = Valkey().start()
    with Proxy(own_valkey.port) as path, follower.client as client:
        client.replicaof("127.0.0.1", path.port)
        eventually(lambda: client.info("replication")["master_link_status"] == "up")
        yield follower, path
    follower.destroy()


@pytest.fixture
def table(store: redis.Redis) -> Table:
    table = Table()
    table.generation = Generation(G, history(store))
    return table


@pytest.fixture
def work(valkey: Valkey, table: Table, connect: Connect) -> Callable[..., Worker]:
    def work(uri: str = valkey.uri, **options: Any) -> Worker:
        return Worker(table, lambda: connect(uri, **options))

    return work


@pytest.fixture
def worker(work: Callable[..., Worker]) -> Worker:
    return work()


@pytest.fixture
def other(work: Callable[..., Worker]) -> Worker:
    """Another worker, perhaps of another pod, with the same database and cache."""
    return work()


@pytest.fixture
def path(valkey: Valkey) -> Iterator[Proxy]:
    """One worker's way to the cache."""
    with Proxy(valkey.port) as path:
        yield path


@pytest.fixture
def today() -> Today:
    return Today()
