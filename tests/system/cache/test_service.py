"""The service with a cache, as clients see it."""

import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from tests.support.cache import history
from tests.support.postgres import Cluster
from tests.support.processes import eventually
from tests.support.proxy import BLACKHOLE, PASS, TRICKLE, Proxy
from tests.support.service import Client, Service
from tests.support.valkey import Valkey
from tests.support.workload import says

DIFFERS = "the cache is not the one that was used last"


@pytest.fixture
def settings(shared_cluster: Cluster, database: str, store: redis.Redis) -> dict[str, str]:
    """Of services that have used this cache before."""
    sql = "UPDATE cache_use SET history = %s, suspended_until = CURRENT_TIMESTAMP"
    shared_cluster.query(sql, database, (history(store),))
    return {"DB_URI": shared_cluster.uri(database), "CACHE_TIMEOUT": "1"}


@pytest.fixture
def sharing(settings: dict[str, str], valkey: Valkey) -> Iterator[tuple[Client, Client]]:
    """The clients of two services that share a cache."""
    settings |= {"CACHE_URI": valkey.uri}
    with (
        Service(**settings).wait_until() as one,
        Service(**settings).wait_until() as other,
        one.client() as client,
        other.client() as elsewhere,
    ):
        yield client, elsewhere


@pytest.fixture
def reads_the_database(shared_cluster: Cluster, database: str) -> Callable[[Client, str], bool]:
    """If a GET looks the user up there."""

    def reads(client: Client, name: str) -> bool:
        before = shared_cluster.statements(database, "PREPARE find%")
        assert client.get(name).status == 200
        return shared_cluster.statements(database, "PREPARE find%") > before

    return reads


def test_the_service_reads_a_user_once(
    sharing: tuple[Client, Client], reads_the_database: Callable[[Client, str], bool]
) -> None:
    client, elsewhere = sharing
    assert client.put("alice", "1990-05-17").status == 204
    assert reads_the_database(client, "alice")
    for _ in range(5):
        assert not reads_the_database(client, "alice")
        assert not reads_the_database(elsewhere, "alice")


def stores(client: Client, born: str) -> bool:
    return client.put("alice", born).status == 204


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
            eventually(partial(stores, (client, elsewhere)[n % 2], born))
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
    sharing: tuple[Client, Client],
) -> None:
    client, elsewhere = sharing
    for n in range(100):
        born = f"1990-{n % 12 + 1:02}-{n % 28 + 1:02}"
        assert client.put("alice", born).status == 204
        assert says(elsewhere.get("alice"), born)
        client, elsewhere = elsewhere, client


def test_a_user_whom_an_operator_deleted_and_who_comes_back_has_the_new_date(
    sharing: tuple[Client, Client],
    shared_cluster: Cluster,
    database: str,
    reads_the_database: Callable[[Client, str], bool],
) -> None:
    client, elsewhere = sharing
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
