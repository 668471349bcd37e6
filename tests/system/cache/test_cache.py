"""The cache, in steps that each test puts in the order it wants, on a real Valkey.

A test plays the parts of several readers and writers, each with a connection of its own;
the database is a table in memory. The service as a whole comes last.
"""

import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date, timedelta, tzinfo
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import falcon.testing
import gevent
import pytest
import redis

from hello.app import create_app
from hello.cache.connection import AnotherHistory, CacheConnection, CacheUnavailable, Lease
from hello.cache.lanes import Cache, CacheReads, FillingReads, RemovingWrites
from hello.cache.permission import RENEWAL, TERM, Permission
from hello.database.models import CacheStanding, Generation, Record
from hello.errors import DatabaseUnavailable, Rejected
from hello.telemetry import metrics
from tests.support.postgres import Cluster
from tests.support.processes import eventually, free_port
from tests.support.proxy import BLACKHOLE, PASS, REFUSE, TRICKLE, Proxy
from tests.support.service import Client, Service
from tests.support.users import users_of
from tests.support.valkey import Valkey
from tests.support.workload import says

OLD, NEW, NEWER = date(1990, 5, 17), date(1991, 6, 18), date(1992, 7, 19)
#: The number of a generation of keys.
G = 7
#: A deadline. What is tested here waits for the cache alone, which has its own.
FOREVER = float("inf")

Connect = Callable[..., CacheConnection]


def history(server: redis.Redis) -> str:
    return server.info("replication")["master_replid"]


class Connection(CacheConnection):
    """One that uses a generation of the server as it is now, unless another is meant."""

    def claim(self, names: Iterable[str], generation: Generation | None = None) -> dict:
        return super().claim(names, generation or self.present())

    def remove(self, names: Iterable[str], generation: Generation | None = None) -> None:
        super().remove(names, generation or self.present())

    def present(self) -> Generation:
        with redis.Redis.from_url(self._uri(), decode_responses=True) as server:
            return Generation(G, history(server))


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
def reader(connect: Connect) -> CacheConnection:
    return connect()


@pytest.fixture
def writer(connect: Connect) -> CacheConnection:
    return connect()


@pytest.fixture
def another(connect: Connect) -> CacheConnection:
    return connect()


def key(store: redis.Redis, name: str = "alice") -> str:
    """The key of a user."""
    return f"hello:1:{G}:{store.info('server')['run_id'][:12]}:{name}"


def held(store: redis.Redis, name: str = "alice") -> Record | None:
    """The value that is stored for a user, if it is one."""
    match = re.fullmatch(r"v\|(?:.*\|)?(\d+)\|(\d{4}-\d\d-\d\d)", store.get(key(store, name)) or "")
    return match and Record(date.fromisoformat(match[2]), int(match[1]))


def fill(connection: CacheConnection, **users: Record) -> None:
    """Read users that are not cached, and store them."""
    claimed = connection.claim(users)
    [lease] = {lease for lease in claimed.values() if isinstance(lease, Lease)}
    connection.fill(lease, users)


# What a connection stores


def test_what_was_read_under_a_lease_is_found(
    reader: CacheConnection, another: CacheConnection
) -> None:
    alice, bob = Record(OLD, 1), Record(date(1, 1, 1), 2**62)
    fill(reader, alice=alice, bob=bob)
    assert another.claim(["bob", "alice"]) == {"alice": alice, "bob": bob}


def test_one_reader_at_a_time_has_the_lease(
    reader: CacheConnection, another: CacheConnection
) -> None:
    mine = reader.claim(["alice", "bob"])
    assert mine["alice"] == mine["bob"]
    theirs = another.claim(["bob", "carol"])
    assert theirs.keys() == {"carol"}
    assert theirs["carol"] != mine["bob"]


def test_a_lease_ends_if_its_reader_does_not_come_back(connect: Connect) -> None:
    assert "alice" in connect(lease=0.1).claim(["alice"])
    another = connect()
    eventually(lambda: "alice" in another.claim(["alice"]))


def test_a_reader_whose_lease_ended_stores_nothing(connect: Connect, store: redis.Redis) -> None:
    slow = connect(lease=0.05)
    lease = slow.claim(["alice"])["alice"]
    eventually(lambda: not store.exists(key(store)))
    slow.fill(lease, {"alice": Record(OLD, 1)})
    assert not store.exists(key(store))


def test_a_user_who_does_not_exist_is_not_cached(
    reader: CacheConnection, another: CacheConnection, store: redis.Redis
) -> None:
    lease = reader.claim(["alice", "bob"])["alice"]
    reader.fill(lease, {"alice": None, "bob": Record(OLD, 1)})
    assert not store.exists(key(store))
    assert isinstance(another.claim(["alice"])["alice"], Lease)


def test_a_writer_removes_a_lease(reader: CacheConnection, writer: CacheConnection) -> None:
    lease = reader.claim(["alice"])["alice"]
    writer.remove(["alice"])
    reader.fill(lease, {"alice": Record(OLD, 1)})
    assert isinstance(reader.claim(["alice"])["alice"], Lease)


def test_a_writer_removes_a_value(
    reader: CacheConnection, writer: CacheConnection, another: CacheConnection, store: redis.Redis
) -> None:
    fill(reader, alice=Record(OLD, 3), bob=Record(OLD, 3), carol=Record(OLD, 3))
    writer.remove(["alice", "bob"])
    assert not store.exists(key(store, "alice"), key(store, "bob"))
    assert another.claim(["carol"]) == {"carol": Record(OLD, 3)}


def test_a_writer_stores_nothing_where_there_is_nothing(
    writer: CacheConnection, store: redis.Redis
) -> None:
    writer.remove(["alice", "bob"])
    assert not store.exists(key(store, "alice"), key(store, "bob"))


def test_keys_are_those_of_a_form_a_generation_and_a_history(
    connect: Connect, store: redis.Redis
) -> None:
    fill(connect(), alice=Record(OLD, 1), Жанна=Record(OLD, 1))
    assert set(store.keys("*")) == {key(store), key(store, "Жанна")}
    assert isinstance(connect().claim(["alice"], Generation(G + 1, history(store)))["alice"], Lease)


def test_everything_expires(connect: Connect, store: redis.Redis) -> None:
    connection = connect(ttl=60, lease=5)
    lease = connection.claim(["alice"])["alice"]
    assert 0 < store.pttl(key(store)) <= 5_000
    connection.fill(lease, {"alice": Record(OLD, 1)})
    assert 5_000 < store.pttl(key(store)) <= 60_000
    store.pexpire(key(store), 1_000)
    connection.claim(["alice"])
    assert store.pttl(key(store)) <= 1_000, "a hit prolonged it"


@pytest.mark.parametrize(
    "text", ["", "v|", "v|1", "v|x|1990-05-17", "v|1|1990-99-99", "v|1|1990-05-17|", b"\xff", "?"]
)
def test_what_cannot_be_understood_is_not_an_error(
    connect: Connect, store: redis.Redis, text: str
) -> None:
    connection = connect()
    fill(connection, bob=Record(OLD, 1))
    store.set(key(store), text)
    found = connection.claim(["alice", "bob"])
    assert not isinstance(found.get("alice"), Record)
    assert found["bob"] == Record(OLD, 1)


def test_a_key_of_another_type_is_replaced_or_away(
    reader: CacheConnection, writer: CacheConnection, store: redis.Redis
) -> None:
    store.rpush(key(store), "something")
    for attempt in (
        lambda: writer.remove(["alice"]),
        lambda: reader.claim(["alice"]),
        lambda: fill(reader, bob=Record(OLD, 1)),
    ):
        with suppress(CacheUnavailable):
            attempt()
    assert reader.claim(["bob"]) == {"bob": Record(OLD, 1)}


@pytest.mark.parametrize("step", ["claim", "fill", "remove"])
def test_scripts_that_the_server_forgot_are_sent_again(
    reader: CacheConnection, writer: CacheConnection, store: redis.Redis, step: str
) -> None:
    def forget(name: str) -> None:
        if name == step:
            store.script_flush()

    fill(reader, alice=Record(OLD, 1))
    forget("remove")
    writer.remove(["alice"])
    store.delete(key(store))
    forget("claim")
    lease = reader.claim(["alice"])["alice"]
    forget("fill")
    reader.fill(lease, {"alice": Record(NEW, 2)})
    assert reader.claim(["alice"]) == {"alice": Record(NEW, 2)}


# What no interleaving may do


class Reader(NamedTuple):
    """How far a read has come: its lease, and what the database told it."""

    step: str = "claim"
    lease: Lease = Lease("", Generation(G, ""))
    found: Record | None = None


class Writer(NamedTuple):
    """How far a PUT has come, and how many dates there were when it committed."""

    born: date
    step: str = "commit"
    number: int = 0


class State(NamedTuple):
    #: What the key holds.
    text: str | None
    readers: tuple[Reader, ...]
    writers: tuple[Writer, ...]
    #: All dates that were stored, in their order.
    dates: tuple[date, ...]
    #: How many dates there have been when the last PUT was answered.
    acknowledged: int
    #: How many of them the row has lost: versions begin after them.
    lost: int = 0
    #: How often an operator may still delete the row.
    deletions: int = 0

    @property
    def kind(self) -> tuple:
        """The state without what makes two leases differ that are alike."""
        text: object = self.text
        if self.text and self.text.startswith("r|"):
            text = tuple(reader.lease.token == self.text for reader in self.readers)
        readers = tuple((r.step, bool(r.lease.token), r.found) for r in self.readers)
        return text, readers, *self[2:]


class World:
    """Every state that readers, writers and losses of the key can lead to."""

    def __init__(self, connection: Connection, store: redis.Redis) -> None:
        self._connection = connection
        self._store = store
        self._key = key(store)
        self._generation = connection.present()
        self.states = 0
        self.hits = 0

    def explore(self, start: State) -> None:
        seen = {start.kind}
        todo = [(start, ("start",))]
        while todo:
            state, path = todo.pop()
            self._check(state, path)
            for name, step in self._steps(state):
                after = step()
                if after.kind not in seen:
                    seen.add(after.kind)
                    todo.append((after, (*path, name)))
        self.states = len(seen)

    def _check(self, state: State, path: tuple[str, ...]) -> None:
        if state.text and state.text.startswith("v|"):
            # An older version of a date that is current again shows what is true.
            born = date.fromisoformat(state.text.rpartition("|")[2])
            assert born in state.dates[max(0, state.acknowledged - 1) :], "\n".join(path)
            self.hits += 1

    def _steps(self, state: State) -> Iterator[tuple[str, Callable[[], State]]]:
        if state.text is not None:
            yield "lose", lambda: state._replace(text=None)
        if state.deletions:
            yield (
                "delete",
                lambda: state._replace(lost=len(state.dates), deletions=state.deletions - 1),
            )
        for n, reader in enumerate(state.readers):
            if reader.step != "done":
                yield f"reader {n}: {reader.step}", lambda n=n: self._read(state, n)
        for n, writer in enumerate(state.writers):
            if writer.step != "done":
                yield f"writer {n}: {writer.step}", lambda n=n: self._write(state, n)
            if writer.step == "remove":
                yield f"writer {n}: crash", lambda n=n: _with_writer(state, n, step="done")

    def _read(self, state: State, n: int) -> State:
        reader = state.readers[n]
        text = state.text
        if reader.step == "claim":
            lease, text = self._do(
                state, lambda c: c.claim(["alice"], self._generation).get("alice")
            )
            if isinstance(lease, Lease):
                reader = Reader("read", lease)
            else:
                reader = Reader("done")
        elif reader.step == "read":
            version = len(state.dates) - state.lost
            found = Record(state.dates[-1], version) if version else None
            reader = reader._replace(step="fill", found=found)
        else:
            _, text = self._do(state, lambda c: c.fill(reader.lease, {"alice": reader.found}))
            reader = Reader("done")
        readers = (*state.readers[:n], reader, *state.readers[n + 1 :])
        return state._replace(text=text, readers=readers)

    def _write(self, state: State, n: int) -> State:
        writer = state.writers[n]
        if writer.step == "commit":
            dates = state.dates
            if len(dates) == state.lost or dates[-1] != writer.born:
                dates = (*dates, writer.born)
            after = state._replace(dates=dates)
            return _with_writer(after, n, step="remove", number=len(dates))
        _, text = self._do(state, lambda c: c.remove(["alice"], self._generation))
        acknowledged = max(state.acknowledged, writer.number)
        after = state._replace(text=text, acknowledged=acknowledged)
        return _with_writer(after, n, step="done")

    def _do(self, state: State, operation: Callable[[CacheConnection], Any]) -> tuple[Any, Any]:
        if state.text is None:
            self._store.delete(self._key)
        else:
            self._store.set(self._key, state.text)
        result = operation(self._connection)
        return result, self._store.get(self._key)


def _with_writer(state: State, n: int, **changes: Any) -> State:
    writer = state.writers[n]._replace(**changes)
    return state._replace(writers=(*state.writers[:n], writer, *state.writers[n + 1 :]))


@pytest.mark.parametrize(
    ("readers", "dates"),
    [(2, [NEW]), (2, [NEW, NEWER]), (1, [NEW, NEW]), (1, [NEW, OLD, NEW]), (1, [NEW, OLD, OLD])],
    ids=["one writer", "two writers", "the same date", "there and back", "back, and again"],
)
def test_no_order_of_steps_leaves_an_outdated_value(
    connect: Connect, store: redis.Redis, readers: int, dates: list[date]
) -> None:
    # Each reader claims, reads and fills. Each writer commits, and removes before it is
    # acknowledged, or crashes before it. At any moment the key may be evicted, expire, or be
    # lost with the server.
    world = World(connect(), store)
    writers = tuple(map(Writer, dates))
    empty = State(None, (Reader(),) * readers, writers, (OLD,), acknowledged=1)
    world.explore(empty)
    fill(connect(), alice=Record(OLD, 1))
    world.explore(empty._replace(text=store.get(key(store))))
    assert world.states > 50
    assert world.hits > 10


@pytest.mark.parametrize(
    ("readers", "dates"),
    [(2, [NEW]), (1, [NEW, NEWER]), (1, [OLD, NEW]), (1, [NEW, OLD, NEWER])],
    ids=["one writer", "two writers", "the same date", "there and back"],
)
def test_no_order_of_steps_leaves_an_outdated_value_though_versions_begin_again(
    connect: Connect, store: redis.Redis, readers: int, dates: list[date]
) -> None:
    # As above, and an operator deletes the row at any moment.
    world = World(connect(), store)
    fill(connect(), alice=Record(OLD, 2))
    writers = tuple(map(Writer, dates))
    start = State(store.get(key(store)), (Reader(),) * readers, writers, (NEWER, OLD), 2)
    world.explore(start._replace(deletions=2))
    assert world.states > 50
    assert world.hits > 10


def lose_by_eviction(valkey: Valkey) -> None:
    with valkey.client as client:
        client.delete(key(client))


def lose_by_flush(valkey: Valkey) -> None:
    with valkey.client as client:
        client.flushall()


@pytest.fixture(params=[lose_by_eviction, lose_by_flush], ids=["eviction", "FLUSHALL"])
def lose(request: pytest.FixtureRequest, own_valkey: Valkey) -> Callable[[], None]:
    return lambda: request.param(own_valkey)


def insist(operation: Callable[[], Any]) -> Any:
    """Do it on a new connection if the server has closed the old one."""
    try:
        return operation()
    except CacheUnavailable:
        return operation()


def test_a_slow_reader_stores_nothing_if_the_key_was_lost_after_a_write(
    own_valkey: Valkey, connect: Connect, lose: Callable[[], None]
) -> None:
    slow, writer, another = (connect(own_valkey.uri) for _ in range(3))
    lease = slow.claim(["alice"])["alice"]
    writer.remove(["alice"])
    lose()
    insist(lambda: slow.fill(lease, {"alice": Record(OLD, 1)}))
    assert isinstance(another.claim(["alice"])["alice"], Lease)


def test_a_slow_reader_stores_nothing_if_the_key_was_lost_before_a_write(
    own_valkey: Valkey, connect: Connect, lose: Callable[[], None]
) -> None:
    slow, writer, another = (connect(own_valkey.uri) for _ in range(3))
    lease = slow.claim(["alice"])["alice"]
    lose()
    writer.remove(["alice"])
    insist(lambda: slow.fill(lease, {"alice": Record(OLD, 1)}))
    assert isinstance(another.claim(["alice"])["alice"], Lease)


def test_a_slow_reader_does_not_replace_what_was_stored_after_a_loss(
    own_valkey: Valkey, connect: Connect, lose: Callable[[], None]
) -> None:
    slow, writer, another = (connect(own_valkey.uri) for _ in range(3))
    lease = slow.claim(["alice"])["alice"]
    lose()
    writer.remove(["alice"])
    fill(another, alice=Record(NEW, 2))
    insist(lambda: slow.fill(lease, {"alice": Record(OLD, 1)}))
    assert another.claim(["alice"]) == {"alice": Record(NEW, 2)}


def test_a_slow_reader_does_not_use_the_lease_of_another(
    own_valkey: Valkey, connect: Connect, lose: Callable[[], None]
) -> None:
    slow, another = connect(own_valkey.uri), connect(own_valkey.uri)
    old = slow.claim(["alice"])["alice"]
    lose()
    new = another.claim(["alice"])["alice"]
    insist(lambda: slow.fill(old, {"alice": Record(OLD, 1)}))
    assert another.claim(["alice"]) == {}
    another.fill(new, {"alice": Record(NEW, 2)})
    assert another.claim(["alice"]) == {"alice": Record(NEW, 2)}


# What arrives late


def test_a_claim_that_arrives_again_after_a_write_stores_nothing(
    reader: CacheConnection, writer: CacheConnection, another: CacheConnection
) -> None:
    reader.ping()  # it is open
    claim = reader._scripts["claim"]
    late: list[Any] = []

    def cut(*arguments: Any) -> None:
        late.extend(arguments[:2])
        reader._scripts["claim"] = claim
        raise redis.ConnectionError

    reader._scripts["claim"] = cut
    lease = reader.claim(["alice"])["alice"]
    assert late
    # Its reader has seen the old date.
    writer.remove(["alice"])
    assert late[1][1] in claim(*late, another._client or _opened(another)), "it is not there"
    reader.fill(lease, {"alice": Record(OLD, 1)})
    assert not isinstance(another.claim(["alice"]).get("alice"), Record)


def _opened(connection: CacheConnection) -> Any:
    connection.ping()
    return connection._client


# A full cache


def test_a_cache_that_evicts_is_right_about_what_is_left(
    own_valkey: Valkey, connect: Connect
) -> None:
    reader, writer = connect(own_valkey.uri), connect(own_valkey.uri)
    names = [f"user-{n}" for n in range(20_000)]
    batches = [names[n : n + 250] for n in range(0, len(names), 250)]
    with own_valkey.client as store:
        store.config_set("maxmemory-policy", "allkeys-lru")
        store.config_set("maxmemory", store.info("memory")["used_memory"] + 500_000)
        for batch in batches:
            fill(reader, **dict.fromkeys(batch, Record(OLD, 1)))
        for batch in batches[::2]:
            writer.remove(batch)
        assert store.info("stats")["evicted_keys"] > 1_000
    # The last are asked first: a claim that finds nothing evicts something.
    found = {n: value for batch in batches[::-1] for n, value in reader.claim(batch).items()}
    left = {name for name, value in found.items() if isinstance(value, Record)}
    assert left
    assert left <= {name for batch in batches[1::2] for name in batch}


def test_a_cache_that_is_full_keeps_nothing_outdated(own_valkey: Valkey, connect: Connect) -> None:
    reader, writer = connect(own_valkey.uri), connect(own_valkey.uri)
    fill(reader, alice=Record(OLD, 1), bob=Record(OLD, 1))
    with own_valkey.client as store:
        store.config_set("maxmemory-policy", "noeviction")
        store.config_set("maxmemory", 1)
        writer.remove(["alice", "bob"])
        assert held(store, "alice") is None
        assert held(store, "bob") is None
        store.config_set("maxmemory", 0)
    insist(lambda: fill(reader, carol=Record(OLD, 1)))


# Failover of the cache


@pytest.fixture
def follower(own_valkey: Valkey) -> Iterator[tuple[Valkey, Proxy]]:
    """A replica of the cache, and the path by which it follows."""
    follower = Valkey().start()
    with Proxy(own_valkey.port) as path, follower.client as client:
        client.replicaof("127.0.0.1", path.port)
        eventually(lambda: client.info("replication")["master_link_status"] == "up")
        yield follower, path
    follower.destroy()


def test_what_a_failover_of_the_cache_brings_back_is_not_read(
    own_valkey: Valkey, follower: tuple[Valkey, Proxy], connect: Connect
) -> None:
    # The copy had not received the writer's step.
    valkey, path = follower
    reader, writer = connect(own_valkey.uri), connect(own_valkey.uri)
    generation = reader.present()
    fill(reader, alice=Record(OLD, 1))
    with valkey.client as client, own_valkey.client as store:
        name = key(store)
        eventually(lambda: client.exists(name))
        path.mode = BLACKHOLE
        writer.remove(["alice"])
        own_valkey.kill()
        client.replicaof("NO", "ONE")
        assert client.exists(name)
        with pytest.raises(AnotherHistory) as caught:
            connect(valkey.uri).claim(["alice"], generation)
        assert caught.value.history == history(client) != generation.history


def test_what_a_cache_that_fails_over_and_back_brings_back_is_not_read(
    own_valkey: Valkey, follower: tuple[Valkey, Proxy], connect: Connect
) -> None:
    # The server never ends, and a connection may have been idle all the time.
    valkey, path = follower
    idle, reader, writer = (connect(own_valkey.uri) for _ in range(3))
    idle.ping()
    generation = reader.present()
    fill(reader, alice=Record(OLD, 1))
    with valkey.client as client, own_valkey.client as store:
        name = key(store)
        eventually(lambda: client.exists(name))
        path.mode = BLACKHOLE
        writer.remove(["alice"])
        client.replicaof("NO", "ONE")
        store.replicaof("127.0.0.1", valkey.port)
        eventually(lambda: store.info("replication")["master_link_status"] == "up")
        store.replicaof("NO", "ONE")
        assert store.exists(key(store)), "the copy brought nothing back"
    for step in (
        lambda: idle.claim(["alice"], generation),
        lambda: idle.remove(["alice"], generation),
        lambda: connect(own_valkey.uri).claim(["alice"], generation),
    ):
        with pytest.raises(AnotherHistory):
            step()


def test_what_a_restart_of_the_cache_brings_back_is_not_read(
    own_valkey: Valkey, connect: Connect
) -> None:
    reader, writer = connect(own_valkey.uri), connect(own_valkey.uri)
    generation = reader.present()
    fill(reader, alice=Record(OLD, 1))
    with own_valkey.client as store:
        name, old = key(store), store.dump(key(store))
    writer.remove(["alice"])
    own_valkey.restart()
    with own_valkey.client as store:
        store.restore(name, 60_000, old)  # as from a file that was saved before the write
    with pytest.raises(AnotherHistory):
        connect(own_valkey.uri).claim(["alice"], generation)


def test_a_lease_of_another_history_stores_nothing(own_valkey: Valkey, connect: Connect) -> None:
    # The first replica begins one, while all connections stay as they are.
    reader = connect(own_valkey.uri)
    lease = reader.claim(["alice"])["alice"]
    follower = Valkey().start()
    try:
        with follower.client as client:
            client.replicaof("127.0.0.1", own_valkey.port)
            eventually(lambda: client.info("replication")["master_link_status"] == "up")
        with pytest.raises(AnotherHistory):
            reader.fill(lease, {"alice": Record(OLD, 1)})
    finally:
        follower.destroy()


def test_a_cache_that_was_demoted_is_not_believed(
    own_valkey: Valkey, follower: tuple[Valkey, Proxy], connect: Connect
) -> None:
    valkey, _ = follower
    reader = connect(own_valkey.uri)
    fill(reader, alice=Record(OLD, 1))
    with valkey.client as client, own_valkey.client as demoted:
        client.replicaof("NO", "ONE")
        # It follows the new one, with a lag; connections to it stay as they are.
        demoted.replicaof("127.0.0.1", free_port())
    connect(valkey.uri).remove(["alice"])
    with pytest.raises(CacheUnavailable):
        reader.claim(["alice"])


# A worker: its lanes over the cache and the database


class Table:
    """Stands in for the database, and for sessions with it."""

    def __init__(self) -> None:
        self.generation = Generation(G, "")
        self.suspended_until = 0.0
        self.rows: dict[str, Record] = {}
        self.read: list[str] = []
        self.fail: Exception | None = None
        self.refused: set[str] = set()

    def find(self, names: Mapping[str, object], deadline: float) -> dict[str, Any]:
        if self.fail:
            raise self.fail
        self.read += names
        found: dict[str, Any] = {n: self.rows[n] for n in names if n in self.rows}
        return found | {name: Rejected("no") for name in self.refused & names.keys()}

    def save(self, dates: Mapping[str, date], deadline: float) -> dict[str, Any]:
        versions: dict[str, Any] = {}
        for name, born in dates.items():
            old = self.rows.get(name, Record(None, 0))
            if name in self.refused:
                versions[name] = Rejected("no")
            elif old.date_of_birth != born:
                versions[name] = old.version + 1
                self.rows[name] = Record(born, old.version + 1)
        if self.fail:
            raise self.fail
        return versions

    def call(self, operation: Callable[["Table"], Any], deadline: float, statement: str) -> Any:
        return operation(self)

    def cache_standing(self, deadline: float) -> CacheStanding:
        if self.fail:
            raise self.fail
        return CacheStanding(self.generation, max(0.0, self.suspended_until - time.monotonic()))

    def suspend_cache(self, seconds: float, history: str | None, deadline: float) -> CacheStanding:
        if self.fail:
            raise self.fail
        number, named = self.generation
        self.generation = Generation(number + 1, named if history is None else history)
        self.suspended_until = time.monotonic() + seconds
        return self.cache_standing(deadline)


class Worker:
    def __init__(self, table: Table, connect: Callable[[], CacheConnection]) -> None:
        self.cache = Cache(connect, Permission(table))
        self.cached = CacheReads(self.cache)
        self.reads = FillingReads(table.find, self.cache)
        self.writes = RemovingWrites(table.save, self.cache)
        self.users = users_of([self.reads], [self.writes], [self.cached])


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


def test_a_user_is_read_from_the_database_once(worker: Worker, other: Worker, table: Table) -> None:
    table.rows["alice"] = Record(OLD, 1)
    assert [w.users.find("alice") for w in (worker, other, worker)] == [Record(OLD, 1)] * 3
    assert table.read == ["alice"]


def test_a_user_who_does_not_exist_is_read_each_time(
    worker: Worker, other: Worker, table: Table
) -> None:
    assert worker.users.find("alice") is None
    assert other.users.find("alice") is None
    assert table.read == ["alice"] * 2
    other.users.save("alice", OLD)
    assert worker.users.find("alice") == Record(OLD, 1)


def test_a_write_shows_everywhere_at_once(worker: Worker, other: Worker, table: Table) -> None:
    for version in range(1, 50):
        born = date(1990, 1, 1).replace(day=version % 28 + 1)
        (worker, other)[version % 2].users.save("alice", born)
        for reader in (worker, other):
            assert reader.users.find("alice") == Record(born, version)
    assert len(table.read) == 49, "more than one read after each write"


def test_a_batch_that_joins_several_leases_stores_them_all(
    worker: Worker, other: Worker, table: Table
) -> None:
    table.rows |= dict.fromkeys(("alice", "bob", "carol"), Record(OLD, 1))
    leases = worker.cached({"alice": None}, FOREVER) | other.cached({"bob": None}, FOREVER)
    found = worker.reads(leases | {"carol": None}, FOREVER)
    assert found.keys() == {"alice", "bob", "carol"}
    cached = other.cached({"alice": None, "bob": None, "carol": None}, FOREVER)
    assert isinstance(cached.pop("carol"), Lease)
    assert cached == {"alice": Record(OLD, 1), "bob": Record(OLD, 1)}


def test_a_refused_name_is_not_cached_and_its_neighbours_are(
    worker: Worker, table: Table, store: redis.Redis
) -> None:
    table.rows["alice"] = Record(OLD, 1)
    table.refused = {"bob"}
    leases = worker.cached({"alice": None, "bob": None}, FOREVER)
    found = worker.reads(dict(leases), FOREVER)
    assert isinstance(found["bob"], Rejected)
    assert held(store) == Record(OLD, 1)
    assert held(store, "bob") is None
    results = worker.writes({"alice": NEW, "bob": NEW}, FOREVER)
    assert isinstance(results["bob"], Rejected)
    assert held(store) is None


@pytest.mark.parametrize("user", [Record(OLD, 1, stale=True), Record(None, 0, stale=True)])
def test_what_may_be_stale_is_not_cached(
    worker: Worker, table: Table, user: Record, store: redis.Redis
) -> None:
    table.rows["alice"] = user
    assert worker.users.find("alice") == user
    assert held(store) is None


def test_users_in_the_cache_are_found_while_the_database_is_away(
    worker: Worker, table: Table
) -> None:
    table.rows["alice"] = Record(OLD, 1)
    worker.users.find("alice")
    table.fail = DatabaseUnavailable("away")
    # As soon as the primary may have acknowledged writes to others, the answer says so.
    stale = Record(OLD, 1, stale=True)
    assert worker.users.find("alice") in (Record(OLD, 1), stale)
    eventually(lambda: worker.users.find("alice") == stale)
    with pytest.raises(DatabaseUnavailable):
        worker.users.find("bob")
    # Without permission there is no right to store.
    assert worker.cached({"alice": None, "bob": None}, FOREVER) == {"alice": stale}
    table.fail = None
    eventually(lambda: gevent.sleep(0.01) or worker.users.find("alice") == Record(OLD, 1))


def test_a_write_that_failed_may_have_been_committed(
    worker: Worker, other: Worker, table: Table
) -> None:
    table.rows["alice"] = Record(OLD, 1)
    assert worker.users.find("alice") == other.users.find("alice") == Record(OLD, 1)
    table.fail = DatabaseUnavailable("the connection broke after the commit")
    with pytest.raises(DatabaseUnavailable):
        worker.users.save("alice", NEW)
    table.fail = None
    assert other.users.find("alice") == Record(NEW, 2)


def test_the_date_is_cached_and_not_the_message(worker: Worker, table: Table) -> None:
    days = [date(2026, 5, 15)]

    def clock(zone: tzinfo) -> date:
        return days[0]

    client = falcon.testing.TestClient(create_app(worker.users, clock=clock))
    table.rows["alice"] = Record(OLD, 1)
    said = []
    for day in (15, 16, 17, 18):
        days[0] = date(2026, 5, day)
        said.append(client.simulate_get("/hello/alice").json["message"].partition("! ")[2])
    assert said == [
        "Your birthday is in 2 day(s)",
        "Your birthday is in 1 day(s)",
        "Happy birthday!",
        "Your birthday is in 364 day(s)",
    ]
    assert table.read == ["alice"]


# A cache that is away


@pytest.fixture(params=[REFUSE, BLACKHOLE])
def outage(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def path(valkey: Valkey) -> Iterator[Proxy]:
    """One worker's way to the cache."""
    with Proxy(valkey.port) as path:
        yield path


@pytest.fixture
def cut_off(work: Callable[..., Worker], path: Proxy) -> Worker:
    """A worker that reaches the cache by `path`."""
    return work(f"redis://127.0.0.1:{path.port}/0", timeout=0.3)


def begin(outage: str, path: Proxy) -> None:
    path.mode = outage
    if outage == REFUSE:
        path.reset()


def test_without_the_cache_everything_is_answered(
    cut_off: Worker, path: Proxy, table: Table, outage: str
) -> None:
    table.rows["alice"] = Record(OLD, 1)
    cut_off.users.find("alice")
    begin(outage, path)
    for version in range(2, 6):
        born = OLD.replace(year=1900 + version)
        cut_off.users.save("alice", born)
        assert cut_off.users.find("alice") == Record(born, version)
    assert cut_off.cache.permission.suspended


def test_few_reads_wait_for_a_cache_that_does_not_answer(
    cut_off: Worker, path: Proxy, table: Table
) -> None:
    table.rows["alice"] = Record(OLD, 1)
    path.mode = BLACKHOLE
    start = time.monotonic()
    for _ in range(100):
        assert cut_off.users.find("alice") == Record(OLD, 1)
    # If each had waited until the cache's time is up, 0.3 s, these were 30 s.
    assert time.monotonic() - start < 15


def test_a_cache_that_was_never_there(work: Callable[..., Worker], table: Table) -> None:
    worker = work(f"redis://127.0.0.1:{free_port()}/0")
    worker.users.save("alice", OLD)
    assert worker.users.find("alice") == Record(OLD, 1)


@pytest.mark.parametrize("uri", ["", "redis://", "nonsense", "redis://127.0.0.1:1/x"])
def test_a_cache_uri_that_was_changed_to_nonsense(
    work: Callable[..., Worker], table: Table, uri: str
) -> None:
    worker = work(uri)
    worker.users.save("alice", OLD)
    assert worker.users.find("alice") == Record(OLD, 1)


def test_the_timeout_of_the_settings_is_the_one_that_counts(connect: Connect, path: Proxy) -> None:
    path.mode = BLACKHOLE
    start = time.monotonic()
    with pytest.raises(CacheUnavailable):
        connect(f"redis://127.0.0.1:{path.port}/0?socket_timeout=60", timeout=0.3).ping()
    with pytest.raises(CacheUnavailable):
        connect(f"redis://127.0.0.1:{path.port}/0", timeout=0.3).ping()
    assert time.monotonic() - start < 15


def refuse_strangers(store: redis.Redis) -> None:
    store.config_set("requirepass", "s3cret")


def refuse_writes(store: redis.Redis) -> None:
    store.replicaof("127.0.0.1", free_port())


def have_no_room(store: redis.Redis) -> None:
    store.config_set("maxmemory", "1")


@pytest.mark.parametrize(
    ("begin", "password", "word"),
    [
        (refuse_strangers, "", "NOAUTH"),
        (refuse_strangers, "wr0ng", "WRONGPASS"),
        (refuse_writes, "", "READONLY"),
        (have_no_room, "", "OOM"),
    ],
)
def test_what_the_server_says_is_told_by_its_first_word(
    own_valkey: Valkey,
    connect: Connect,
    begin: Callable[[redis.Redis], None],
    password: str,
    word: str,
) -> None:
    with own_valkey.client as store:
        begin(store)
    uri = own_valkey.uri.replace("//", f"//:{password}@") if password else own_valkey.uri
    with pytest.raises(CacheUnavailable) as caught:
        connect(uri).claim(["alice"], Generation(G, ""))
    assert str(caught.value).partition(": ")[2] == word


def test_what_is_no_cache_at_all_is_away(connect: Connect) -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            for _ in range(4):
                connection.recv(4096)
                connection.sendall(b":1\r\n" * 8)

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        answering = pool.submit(answer)
        port = listener.getsockname()[1]
        with pytest.raises(CacheUnavailable):
            connect(f"redis://127.0.0.1:{port}/0").ping()
        listener.close()
        with suppress(ConnectionError):
            answering.result()


def test_nobody_sees_the_past_when_one_writer_cannot_reach_the_cache(
    cut_off: Worker, other: Worker, path: Proxy, table: Table, outage: str
) -> None:
    table.rows["alice"] = Record(OLD, 1)
    other.users.find("alice")
    assert other.users.find("alice") == Record(OLD, 1)
    begin(outage, path)
    start = time.monotonic()
    cut_off.users.save("alice", NEW)
    # The other worker had permission until now.
    assert time.monotonic() - start >= TERM
    assert other.users.find("alice") == Record(NEW, 2)
    # From now on nobody waits, and what others write they need not tell the cache.
    before = table.generation.number
    for version in range(3, 23):
        born = OLD.replace(year=1900 + version)
        (cut_off, other)[version % 2].users.save("alice", born)
        assert other.users.find("alice") == Record(born, version)
    assert table.generation.number - before <= 1 + (time.monotonic() - start) / RENEWAL


def test_a_suspended_cache_is_used_again_when_its_writer_reaches_it(
    cut_off: Worker, other: Worker, path: Proxy, table: Table, outage: str, store: redis.Redis
) -> None:
    table.rows["alice"] = Record(OLD, 1)
    other.users.find("alice")
    begin(outage, path)
    cut_off.users.save("alice", NEW)
    # It stays suspended, as long as the writer cannot reach it, and figures go on to say so.
    generation, failures = table.generation, metrics.CACHE_FAILURES.row[0]
    eventually(lambda: gevent.sleep(0.01) or table.generation > generation)
    assert metrics.CACHE_FAILURES.row[0] > failures
    assert other.users.find("alice") == Record(NEW, 2)
    assert store.keys(f"hello:1:{table.generation}:*:alice") == []
    path.mode = PASS

    def cached() -> bool:
        gevent.sleep(0.01)
        table.read.clear()
        assert other.users.find("alice") == Record(NEW, 2)
        return not table.read

    eventually(cached, within=15)
    cut_off.users.save("alice", NEWER)
    assert other.users.find("alice") == Record(NEWER, 3)


def test_a_write_is_not_acknowledged_if_nobody_can_be_kept_from_the_past(
    cut_off: Worker, other: Worker, path: Proxy, table: Table, outage: str
) -> None:
    table.rows["alice"] = Record(OLD, 1)
    other.users.find("alice")
    begin(outage, path)

    def away(seconds: float, history: str | None, deadline: float) -> CacheStanding:
        raise DatabaseUnavailable("it ended after the commit")

    suspend, table.suspend_cache = table.suspend_cache, away
    with pytest.raises(DatabaseUnavailable):
        cut_off.users.save("alice", NEW)
    table.suspend_cache = suspend
    # The client sends it again; the database has it already.
    cut_off.users.save("alice", NEW)
    assert other.users.find("alice") == Record(NEW, 2)


def test_nobody_reads_from_the_old_server_after_a_failover(
    own_valkey: Valkey, follower: tuple[Valkey, Proxy], work: Callable[..., Worker], table: Table
) -> None:
    # It lives on, as a primary, and so does somebody's connection to it.
    promoted, path = follower
    left_behind = work(own_valkey.uri)
    with own_valkey.client as client:
        table.generation = Generation(G, history(client))
    table.rows["alice"] = Record(OLD, 1)
    left_behind.users.find("alice")
    path.mode = BLACKHOLE
    with promoted.client as client:
        client.replicaof("NO", "ONE")
        gone_over = work(promoted.uri)
        gone_over.users.save("alice", NEW)
        assert table.generation.history == history(client)
    assert left_behind.users.find("alice") == Record(NEW, 2)


def test_the_time_to_live_does_not_begin_again(
    work: Callable[..., Worker], table: Table, store: redis.Redis
) -> None:
    worker = work(ttl=60)
    table.rows["alice"] = Record(OLD, 1)
    worker.users.find("alice")
    store.pexpire(key(store), 1_000)
    worker.users.find("alice")
    assert store.pttl(key(store)) <= 1_000


def test_a_write_reaches_the_cache_though_a_read_has_just_failed(
    worker: Worker, other: Worker, table: Table
) -> None:
    table.rows["alice"] = Record(OLD, 1)
    other.users.find("alice")

    def fail() -> None:
        raise CacheUnavailable("a pause of a quarter of a second")

    with pytest.raises(CacheUnavailable):
        worker.cache.attempt(fail)
    worker.users.save("alice", NEW)
    assert other.users.find("alice") == Record(NEW, 2)


def test_a_write_reaches_the_cache_though_its_connection_was_cut(
    worker: Worker, other: Worker, table: Table, store: redis.Redis
) -> None:
    # A load balancer or the server itself (`timeout`) drops connections that are idle.
    worker.users.save("bob", OLD)
    table.rows["alice"] = Record(OLD, 1)
    other.users.find("alice")
    store.client_kill_filter(_type="normal", skipme=True)
    worker.users.save("alice", NEW)
    table.read.clear()
    assert held(store) in (None, Record(NEW, 2))
    assert insist(lambda: other.users.find("alice")) == Record(NEW, 2)


def test_a_read_uses_the_cache_though_its_connection_was_cut(
    worker: Worker, table: Table, store: redis.Redis
) -> None:
    table.rows["alice"] = Record(OLD, 1)
    worker.users.find("alice")
    store.client_kill_filter(_type="normal", skipme=True)
    assert worker.users.find("alice") == Record(OLD, 1)
    assert table.read == ["alice"]


def test_a_cache_that_failed_is_left_alone_and_tried_again(worker: Worker) -> None:
    tried = []

    def fail() -> None:
        tried.append(time.monotonic())
        raise CacheUnavailable("away")

    def attempt() -> bool:
        with pytest.raises(CacheUnavailable):
            worker.cache.attempt(fail)
        return len(tried) > 1

    eventually(attempt, within=5)
    first, second = tried
    assert second - first >= 1.0


# The service

DIFFERS = "the cache is not the one that was used last"


@pytest.fixture
def settings(shared_cluster: Cluster, database: str, store: redis.Redis) -> dict[str, str]:
    """Of services that have used this cache before."""
    sql = "UPDATE cache_use SET history = %s, suspended_until = CURRENT_TIMESTAMP"
    shared_cluster.query(sql, database, (history(store),))
    return {"DB_URI": shared_cluster.uri(database), "CACHE_TIMEOUT": "1"}


@pytest.fixture
def reads_the_database(shared_cluster: Cluster, database: str) -> Callable[[Client, str], bool]:
    """If a GET looks the user up there."""

    def reads(client: Client, name: str) -> bool:
        before = shared_cluster.statements(database, "PREPARE find%")
        assert client.get(name).status == 200
        return shared_cluster.statements(database, "PREPARE find%") > before

    return reads


def test_the_service_reads_a_user_once(
    settings: dict[str, str], valkey: Valkey, reads_the_database: Callable[[Client, str], bool]
) -> None:
    settings |= {"CACHE_URI": valkey.uri}
    with (
        Service(**settings).wait_until() as one,
        Service(**settings).wait_until() as other,
        one.client() as client,
        other.client() as elsewhere,
    ):
        assert client.put("alice", "1990-05-17").status == 204
        assert reads_the_database(client, "alice")
        for _ in range(5):
            assert not reads_the_database(client, "alice")
            assert not reads_the_database(elsewhere, "alice")


def test_services_with_different_caches_do_without(
    settings: dict[str, str],
    valkey: Valkey,
    own_valkey: Valkey,
    reads_the_database: Callable[[Client, str], bool],
) -> None:
    with (
        Service(**settings, CACHE_URI=valkey.uri).wait_until() as one,
        Service(**settings, CACHE_URI=own_valkey.uri).wait_until() as other,
        one.client() as client,
        other.client() as elsewhere,
    ):
        for n in count():
            born = (date(1990, 1, 1) + timedelta(days=n % 300)).isoformat()
            writer = (client, elsewhere)[n % 2]
            eventually(lambda writer=writer, born=born: writer.put("alice", born).status == 204)
            for reader in (client, elsewhere, client, elsewhere):
                assert says(reader.get("alice"), born)
            # Each has taken its own for the one that is used.
            if min(one.log.count(DIFFERS), other.log.count(DIFFERS)) > 1:
                break
            assert n < 1_000, one.log + other.log
            time.sleep(0.03)
    with (
        Service(**settings, CACHE_URI=own_valkey.uri).wait_until() as left,
        left.client() as client,
    ):
        eventually(lambda: not reads_the_database(client, "alice"))


def test_services_that_share_a_cache_see_each_others_writes_at_once(
    settings: dict[str, str], valkey: Valkey
) -> None:
    settings |= {"CACHE_URI": valkey.uri}
    with (
        Service(**settings).wait_until() as one,
        Service(**settings).wait_until() as other,
        one.client() as client,
        other.client() as elsewhere,
    ):
        for n in range(100):
            born = f"1990-{n % 12 + 1:02}-{n % 28 + 1:02}"
            assert client.put("alice", born).status == 204
            assert says(elsewhere.get("alice"), born)
            client, elsewhere = elsewhere, client


def test_a_user_whom_an_operator_deleted_and_who_comes_back_has_the_new_date(
    settings: dict[str, str],
    shared_cluster: Cluster,
    database: str,
    valkey: Valkey,
    reads_the_database: Callable[[Client, str], bool],
) -> None:
    settings |= {"CACHE_URI": valkey.uri}
    with (
        Service(**settings).wait_until() as one,
        Service(**settings).wait_until() as other,
        one.client() as client,
        other.client() as elsewhere,
    ):
        for month in (1, 2, 3):
            assert client.put("alice", f"1990-{month:02}-17").status == 204
        eventually(lambda: not reads_the_database(client, "alice"))
        shared_cluster.query("DELETE FROM users", database)
        assert elsewhere.put("alice", "1991-07-19").status == 204
        assert says(client.get("alice"), "1991-07-19")
        assert says(elsewhere.get("alice"), "1991-07-19")


def test_the_service_forgets_a_cache_that_was_killed_and_finds_it_again(
    settings: dict[str, str],
    own_valkey: Valkey,
    reads_the_database: Callable[[Client, str], bool],
) -> None:
    with (
        Service(CACHE_URI=own_valkey.uri, **settings).wait_until() as service,
        service.client() as client,
    ):

        def health() -> tuple[str, str]:
            document = client.request("GET", "/health").json
            return document["status"], document["dependencies"]["cache"]["state"]

        client.put("alice", "1990-05-17")
        assert health() == ("ok", "up")
        own_valkey.kill()
        for day in range(1, 10):
            assert client.put("alice", f"1990-05-{day:02}").status == 204
            assert says(client.get("alice"), f"1990-05-{day:02}")
        assert health() == ("degraded", "down")
        assert client.request("GET", "/health/ready").status == 200
        own_valkey.start()
        eventually(lambda: not reads_the_database(client, "alice"))
        assert says(client.get("alice"), "1990-05-09")
        assert health() == ("ok", "up")
        assert service.log.count("the cache answers again") < 10
        assert "Traceback" not in service.log


def test_the_service_without_an_answer_from_the_cache(
    settings: dict[str, str],
    valkey: Valkey,
    reads_the_database: Callable[[Client, str], bool],
) -> None:
    with (
        Proxy(valkey.port) as path,
        Service(CACHE_URI=f"redis://127.0.0.1:{path.port}", **settings).wait_until() as service,
        service.client() as client,
    ):
        client.put("alice", "1990-05-17")
        client.get("alice")
        path.mode = BLACKHOLE
        assert client.put("alice", "1991-06-18").status == 204
        start = time.monotonic()
        for _ in range(60):
            assert says(client.get("alice"), "1991-06-18")
        # If each had waited for the cache, a second, this were a minute.
        assert time.monotonic() - start < 30
        path.mode = PASS
        eventually(lambda: not reads_the_database(client, "alice"))
        assert says(client.get("alice"), "1991-06-18")


@pytest.mark.parametrize("connected", [True, False])
def test_the_service_with_a_cache_that_answers_a_byte_at_a_time(
    settings: dict[str, str], valkey: Valkey, connected: bool
) -> None:
    settings |= {"CACHE_TIMEOUT": "0.5", "REQUEST_TIMEOUT": "2"}
    with (
        Proxy(valkey.port) as path,
        Service(CACHE_URI=f"redis://127.0.0.1:{path.port}", **settings).wait_until() as service,
        service.client(timeout=60) as client,
    ):
        for day in (17, 18):
            assert client.put("alice", f"1990-05-{day}").status == 204
            assert says(client.get("alice"), f"1990-05-{day}")
        path.mode = TRICKLE
        if not connected:
            path.reset()
        start = time.monotonic()
        assert says(client.get("alice"), "1990-05-18")
        read = time.monotonic()
        assert client.put("alice", "1991-06-19").status == 204
        written = time.monotonic()
        assert says(client.get("alice"), "1991-06-19")
        # REQUEST_TIMEOUT and a CACHE_TIMEOUT or two. What the cache says to a new connection
        # takes minutes, and to a question for one user five seconds.
        assert read - start < 3
        assert written - read < 3
        path.mode = PASS
        eventually(lambda: client.request("GET", "/health").json["status"] == "ok")


@pytest.mark.parametrize(
    "later", ["redis://{}?ssl_cert_reqs=none", "redis://{}?encoding=x", "redis://s3cret:x", ""]
)
def test_a_mounted_uri_that_becomes_wrong_is_a_cache_that_is_away(
    settings: dict[str, str], valkey: Valkey, tmp_path: Path, later: str
) -> None:
    secret = tmp_path / "CACHE_URI"
    secret.write_text(valkey.uri)
    with (
        Service(SECRETS_DIR=str(tmp_path), **settings).wait_until() as service,
        service.client() as client,
    ):
        client.put("alice", "1990-05-17")
        client.get("alice")
        secret.write_text(later.format(f"127.0.0.1:{valkey.port}/0"))
        with valkey.client as store:
            store.client_kill_filter(_type="normal", skipme=True)
        for n in range(1, 10):
            assert client.put("alice", f"1990-05-{n:02}").status == 204
            assert says(client.get("alice"), f"1990-05-{n:02}")
        cache = client.request("GET", "/health").json["dependencies"]["cache"]
        assert cache["state"] == "down"
        assert "CACHE_URI: " in str(cache)
        assert "Traceback" not in service.log
        assert "s3cret" not in service.log

        secret.write_text(valkey.uri)
        health = "/health"
        eventually(lambda: client.request("GET", health).json["status"] == "ok")


def test_the_password_of_the_cache_is_rotated(
    settings: dict[str, str],
    own_valkey: Valkey,
    tmp_path: Path,
    reads_the_database: Callable[[Client, str], bool],
) -> None:
    def rotate(password: str) -> None:
        uri = own_valkey.uri.replace("//", f"//:{quote(password, safe='')}@")
        (tmp_path / "CACHE_URI").write_text(uri)
        store.config_set("requirepass", password)
        store.client_kill_filter(_type="normal", skipme=True)

    # A connection that was there before needs no password.
    with redis.Redis.from_url(own_valkey.uri, single_connection_client=True) as store:
        rotate("p@ss:w/rd 1")
        with (
            Service(SECRETS_DIR=str(tmp_path), **settings).wait_until() as service,
            service.client() as client,
        ):
            client.put("alice", "1990-05-17")
            eventually(lambda: not reads_the_database(client, "alice"))
            rotate("another")
            eventually(lambda: not reads_the_database(client, "alice"))
            assert "another" not in service.log
