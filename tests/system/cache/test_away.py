"""A cache that some or all workers do not reach is suspended, and used again later."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import gevent
import pytest
import redis

from hello.cache.connection import CacheUnavailable
from hello.cache.permission import RENEWAL, TERM
from hello.database.models import Birthday, CacheStanding, Generation
from hello.errors import DatabaseUnavailable
from hello.telemetry.metrics import events
from tests.support.cache import NEW, NEWER, OLD, Connect, G
from tests.support.processes import eventually, free_port
from tests.support.proxy import BLACKHOLE, PASS, REFUSE, Proxy
from tests.support.valkey import Valkey
from tests.support.worker import Table, Worker


@pytest.fixture(params=[REFUSE, BLACKHOLE])
def outage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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
    table.rows["alice"] = Birthday(OLD, 1)
    cut_off.users.find("alice")
    begin(outage, path)
    for version in range(2, 6):
        born = OLD.replace(year=1900 + version)
        cut_off.users.save("alice", born)
        assert cut_off.users.find("alice") == Birthday(born, version)
    assert cut_off.cache.permission.suspended


def test_few_reads_wait_for_a_cache_that_does_not_answer(
    cut_off: Worker, path: Proxy, table: Table
) -> None:
    table.rows["alice"] = Birthday(OLD, 1)
    path.mode = BLACKHOLE
    start = time.monotonic()
    for _ in range(100):
        assert cut_off.users.find("alice") == Birthday(OLD, 1)
    # If each had waited until the cache's time is up, 0.3 s, these were 30 s.
    assert time.monotonic() - start < 15


def test_a_cache_that_was_never_there(work: Callable[..., Worker], table: Table) -> None:
    worker = work(f"redis://127.0.0.1:{free_port()}/0")
    worker.users.save("alice", OLD)
    assert worker.users.find("alice") == Birthday(OLD, 1)


@pytest.mark.parametrize("uri", ["", "redis://", "nonsense", "redis://127.0.0.1:1/x"])
def test_a_cache_uri_that_was_changed_to_nonsense(
    work: Callable[..., Worker], table: Table, uri: str
) -> None:
    worker = work(uri)
    worker.users.save("alice", OLD)
    assert worker.users.find("alice") == Birthday(OLD, 1)


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
    table.rows["alice"] = Birthday(OLD, 1)
    other.users.find("alice")
    assert other.users.find("alice") == Birthday(OLD, 1)
    begin(outage, path)
    start = time.monotonic()
    cut_off.users.save("alice", NEW)
    # The other worker had permission until now.
    assert time.monotonic() - start >= TERM
    assert other.users.find("alice") == Birthday(NEW, 2)
    # From now on nobody waits, and what others write they need not tell the cache.
    before = table.generation.number
    for version in range(3, 23):
        born = OLD.replace(year=1900 + version)
        (cut_off, other)[version % 2].users.save("alice", born)
        assert other.users.find("alice") == Birthday(born, version)
    assert table.generation.number - before <= 1 + (time.monotonic() - start) / RENEWAL


def test_a_suspended_cache_is_used_again_when_its_writer_reaches_it(
    cut_off: Worker, other: Worker, path: Proxy, table: Table, outage: str, store: redis.Redis
) -> None:
    table.rows["alice"] = Birthday(OLD, 1)
    other.users.find("alice")
    begin(outage, path)
    cut_off.users.save("alice", NEW)
    # It stays suspended, as long as the writer cannot reach it, and figures go on to say so.
    generation, failures = table.generation, events["cache_failures"][0]
    eventually(lambda: gevent.sleep(0.01) or table.generation > generation)
    assert events["cache_failures"][0] > failures
    assert other.users.find("alice") == Birthday(NEW, 2)
    assert store.keys(f"hello:1:{table.generation}:*:alice") == []
    path.mode = PASS

    def cached() -> bool:
        gevent.sleep(0.01)
        table.read.clear()
        assert other.users.find("alice") == Birthday(NEW, 2)
        return not table.read

    eventually(cached, within=15)
    cut_off.users.save("alice", NEWER)
    assert other.users.find("alice") == Birthday(NEWER, 3)


def test_a_write_is_not_acknowledged_if_nobody_can_be_kept_from_the_past(
    cut_off: Worker,
    other: Worker,
    path: Proxy,
    table: Table,
    outage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table.rows["alice"] = Birthday(OLD, 1)
    other.users.find("alice")
    begin(outage, path)

    def away(seconds: float, history: str | None, deadline: float) -> CacheStanding:
        raise DatabaseUnavailable("it ended after the commit")

    with monkeypatch.context() as patch:
        patch.setattr(table, "suspend_cache", away)
        with pytest.raises(DatabaseUnavailable):
            cut_off.users.save("alice", NEW)
    # The client sends it again; the database has it already.
    cut_off.users.save("alice", NEW)
    assert other.users.find("alice") == Birthday(NEW, 2)
