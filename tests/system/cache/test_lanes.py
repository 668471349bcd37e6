"""The lanes of workers: hits and misses, and writes that show everywhere at once."""

import time
from collections.abc import Callable, Mapping
from datetime import date, tzinfo

import falcon.testing
import gevent
import pytest
import redis

from hello.app import create_app
from hello.cache.connection import CacheUnavailable, Lease
from hello.database.models import NO_SUCH_USER, Record
from hello.errors import DatabaseUnavailable, Rejected
from tests.support.cache import NEW, OLD, held, insist, key
from tests.support.processes import eventually
from tests.support.worker import FOREVER, Table, Worker


def test_a_user_is_read_from_the_database_once(worker: Worker, other: Worker, table: Table) -> None:
    table.rows["alice"] = Record(OLD, 1)
    assert [w.users.find("alice") for w in (worker, other, worker)] == [Record(OLD, 1)] * 3
    assert table.read == ["alice"]


def test_a_user_who_does_not_exist_is_read_each_time(
    worker: Worker, other: Worker, table: Table
) -> None:
    assert worker.users.find("alice") == NO_SUCH_USER
    assert other.users.find("alice") == NO_SUCH_USER
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


def leases(claimed: Mapping[str, object]) -> dict[str, Lease | None]:
    """The leases of a claim that found nothing."""
    return {name: lease for name, lease in claimed.items() if isinstance(lease, Lease)}


def test_a_batch_that_joins_several_leases_stores_them_all(
    worker: Worker, other: Worker, table: Table
) -> None:
    table.rows |= dict.fromkeys(("alice", "bob", "carol"), Record(OLD, 1))
    alice, bob = worker.cached({"alice": None}, FOREVER), other.cached({"bob": None}, FOREVER)
    found = worker.reads(leases(alice) | leases(bob) | {"carol": None}, FOREVER)
    assert found.keys() == {"alice", "bob", "carol"}
    cached = dict(other.cached({"alice": None, "bob": None, "carol": None}, FOREVER))
    assert isinstance(cached.pop("carol"), Lease)
    assert cached == {"alice": Record(OLD, 1), "bob": Record(OLD, 1)}


def test_a_refused_name_is_not_cached_and_its_neighbours_are(
    worker: Worker, table: Table, store: redis.Redis
) -> None:
    table.rows["alice"] = Record(OLD, 1)
    table.refused = {"bob"}
    claimed = worker.cached({"alice": None, "bob": None}, FOREVER)
    found = worker.reads(leases(claimed), FOREVER)
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
