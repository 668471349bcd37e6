"""What a cache that is full, restarts or fails over brings back is not read."""

from collections.abc import Callable

import pytest

from hello.cache.connection import AnotherHistory, CacheUnavailable
from hello.database.models import Generation, Record
from tests.support.cache import NEW, OLD, Connect, G, fill, held, history, insist, key
from tests.support.processes import eventually, free_port
from tests.support.proxy import BLACKHOLE, Proxy
from tests.support.valkey import Valkey
from tests.support.worker import Table, Worker


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
