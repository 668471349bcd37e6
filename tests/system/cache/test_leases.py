"""What one connection to the cache stores is found by others, under a lease."""

from contextlib import suppress
from datetime import date
from typing import Any

import pytest
import redis

from hello.cache.connection import CacheUnavailable, Lease
from hello.database.models import NO_SUCH_USER, Generation, Record
from tests.support.cache import NEW, OLD, Connect, Connection, G, fill, history, key
from tests.support.processes import eventually


def test_what_was_read_under_a_lease_is_found(reader: Connection, another: Connection) -> None:
    alice, bob = Record(OLD, 1), Record(date(1, 1, 1), 2**62)
    fill(reader, alice=alice, bob=bob)
    assert another.claim(["bob", "alice"]) == {"alice": alice, "bob": bob}


def test_one_reader_at_a_time_has_the_lease(reader: Connection, another: Connection) -> None:
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
    reader: Connection, another: Connection, store: redis.Redis
) -> None:
    lease = reader.claim(["alice", "bob"])["alice"]
    reader.fill(lease, {"alice": NO_SUCH_USER, "bob": Record(OLD, 1)})
    assert not store.exists(key(store))
    assert isinstance(another.claim(["alice"])["alice"], Lease)


def test_a_writer_removes_a_lease(reader: Connection, writer: Connection) -> None:
    lease = reader.claim(["alice"])["alice"]
    writer.remove(["alice"])
    reader.fill(lease, {"alice": Record(OLD, 1)})
    assert isinstance(reader.claim(["alice"])["alice"], Lease)


def test_a_writer_removes_a_value(
    reader: Connection, writer: Connection, another: Connection, store: redis.Redis
) -> None:
    fill(reader, alice=Record(OLD, 3), bob=Record(OLD, 3), carol=Record(OLD, 3))
    writer.remove(["alice", "bob"])
    assert not store.exists(key(store, "alice"), key(store, "bob"))
    assert another.claim(["carol"]) == {"carol": Record(OLD, 3)}


def test_a_writer_stores_nothing_where_there_is_nothing(
    writer: Connection, store: redis.Redis
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
    reader: Connection, writer: Connection, store: redis.Redis
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
    reader: Connection, writer: Connection, store: redis.Redis, step: str
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


def test_a_claim_that_arrives_again_after_a_write_stores_nothing(
    reader: Connection, writer: Connection, another: Connection
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


def _opened(connection: Connection) -> Any:
    connection.ping()
    return connection._client
