"""`python -m hello forget` while the service runs: nobody sees an erased user again."""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from hello.cache.permission import TERM
from hello.database.postgresql import PostgreSQL
from hello.errors import DatabaseUnavailable
from tests.support.postgres import Cluster
from tests.support.processes import eventually, stopped
from tests.support.promise import violations
from tests.support.proxy import BLACKHOLE, REFUSE, Proxy
from tests.support.service import Client, Service, forget, migrate
from tests.support.stack import DATABASE, Combination, Stack
from tests.support.workload import Today, Workload

EVERYTHING = Combination(replica=True, cache=True)

#: In every password here: whatever is printed must not hold it.
SECRET = "s3cret"


@contextmanager
def workers(*services: Service) -> Iterator[list[Client]]:
    """A connection to each worker of each service."""
    with ExitStack() as exits:
        clients = []
        for service in services:
            for worker in service.workers:
                others = [pid for pid in service.workers if pid != worker]
                client = exits.enter_context(service.client())
                with ExitStack() as accept_nothing:
                    for pid in others:
                        accept_nothing.enter_context(stopped(pid))
                    assert client.request("GET", "/health/live").status == 200
                clients.append(client)
        assert len(clients) == 2 * len(services)
        yield clients


@contextmanager
def everywhere(stack: Stack) -> Iterator[list[Client]]:
    """A connection to each of two workers of two services."""
    with stack.services(EVERYTHING) as services, workers(*services) as clients:
        yield clients


def statuses(clients: list[Client], username: str = "alice") -> set[int]:
    return {client.get(username).status for client in clients}


def cached(stack: Stack, username: str = "alice") -> bool:
    """Whether the cache holds a value of a user, or a lease."""
    with stack.cache.client as client:
        return bool(client.keys(f"*:{username}"))


def become_cached(stack: Stack, clients: list[Client], username: str = "alice") -> None:
    """Wait until every worker shows a user, and the cache holds a value."""
    eventually(lambda: statuses(clients, username) == {200} and cached(stack, username))


def exists(stack: Stack, username: str = "alice") -> bool:
    return username in stack.stored()


def said(done: subprocess.CompletedProcess) -> tuple[int, str, str]:
    """The exit code and what was printed: one line, without a name, a date or a secret."""
    printed = done.stdout + done.stderr
    assert printed.splitlines(keepends=True) == [printed.rstrip("\n") + "\n"]
    for secret in (SECRET, "://", "Traceback", "alice", "1990"):
        assert secret not in printed
    return done.returncode, done.stdout.rstrip(), done.stderr.rstrip()


ERASED = (0, "erased", "")
NO_SUCH_USER = (1, "no such user", "")


# What others see.


def test_a_user_is_forgotten_by_every_worker_at_once(stack: Stack) -> None:
    with everywhere(stack) as clients:
        for born in ("1990-05-17", "1990-05-18", "1990-05-17"):
            assert clients[0].put("alice", born).status == 204
            assert clients[1].put("bob", born).status == 204
            become_cached(stack, clients)
            assert said(forget("alice", **stack.settings)) == ERASED
            assert not cached(stack)
            assert statuses(clients) == {404}
            assert statuses(clients, "bob") == {200}
            assert not exists(stack)
            assert said(forget("alice", **stack.settings)) == NO_SUCH_USER


def test_a_user_who_is_removed_otherwise_is_still_shown(stack: Stack) -> None:
    with everywhere(stack) as clients:
        assert clients[0].put("alice", "1990-05-17").status == 204
        become_cached(stack, clients)
        stack.primary.query("DELETE FROM users", DATABASE)
        assert statuses(clients) == {200}
        # That is mended as well.
        assert said(forget("alice", **stack.settings)) == NO_SUCH_USER
        assert statuses(clients) == {404}


def test_a_user_is_forgotten_who_is_still_in_a_replica(stack: Stack) -> None:
    with everywhere(stack) as clients:
        assert clients[0].put("alice", "1990-05-17").status == 204
        become_cached(stack, clients)
        stack.catch_up(stack.replica)
        with stack.replica_paused():
            assert said(forget("alice", **stack.settings)) == ERASED
            assert stack.replica.query("SELECT count(*) FROM users", DATABASE) == [(1,)]
            assert statuses(clients) == {404}


@pytest.fixture(params=[BLACKHOLE, REFUSE])
def cut_off(request: pytest.FixtureRequest, stack: Stack) -> Iterator[dict[str, str]]:
    """The settings of who cannot reach the cache, which everybody else uses."""
    with Proxy(stack.cache.port) as path:
        path.mode = request.param
        yield stack.settings | {"CACHE_URI": f"redis://:{SECRET}@127.0.0.1:{path.port}/0"}


def test_a_user_is_forgotten_though_the_cache_cannot_be_told(
    stack: Stack, cut_off: dict[str, str]
) -> None:
    with everywhere(stack) as clients:
        assert clients[0].put("alice", "1990-05-17").status == 204
        become_cached(stack, clients)
        start = time.monotonic()
        assert said(forget("alice", **cut_off)) == ERASED
        # Those who had permission to read from the cache were waited for.
        assert time.monotonic() - start >= TERM
        assert cached(stack)
        assert statuses(clients) == {404}
        # When the cache is used again, it is without what it held.
        clients[0].put("bob", "1990-05-17")

        def used_again() -> bool:
            assert statuses(clients) == {404}
            return statuses(clients, "bob") == {200} and cached(stack, "bob")

        eventually(used_again, within=20)
        assert statuses(clients) == {404}


def test_erasures_beside_writes_end_in_one_of_the_two_orders(stack: Stack) -> None:
    today = Today()
    with stack.services(EVERYTHING, TIMEZONE=today.zone) as services:
        with Workload(services, today, writers=1, sharing=4, readers=4, forgetters=3) as workload:
            workload.proceed(5_000)
        found = violations(workload.history, today.rows(stack.stored()))
    assert found == []
    erased = [o for o in workload.history if o.method == "FORGET" and o.status == 204]
    puts = [o for o in workload.history if o.method == "PUT" and o.status == 204]
    beside = [(e, p) for e in erased for p in puts if e.key == p.key and e.start < p.end < e.end]
    assert beside


# What it says if it is not certain.


def test_nothing_is_erased_while_the_database_is_away(stack: Stack) -> None:
    stack.primary.query("INSERT INTO users VALUES ('alice', '1990-05-17', 1, now(), now())")
    stack.primary_path.mode = REFUSE
    code, out, error = said(forget("alice", **stack.settings))
    assert (code, out) == (3, "")
    assert error.startswith("hello: nothing was erased: ")
    stack.heal()
    assert exists(stack)


def test_an_erasure_that_does_not_end_is_not_known(stack: Stack) -> None:
    settings = stack.settings | {"STATEMENT_TIMEOUT": "0.3"}
    stack.primary.query("INSERT INTO users VALUES ('alice', '1990-05-17', 1, now(), now())")
    with stack.primary.holding("SELECT FROM users FOR UPDATE", DATABASE):
        code, out, error = said(forget("alice", **settings))
    assert (code, out) == (3, "")
    assert error.startswith("hello: it is not known whether it is erased, so run this again: ")
    assert said(forget("alice", **settings)) == ERASED
    assert not exists(stack)


def test_an_erasure_that_arrives_late_erases_nobody(stack: Stack) -> None:
    primary, path = stack.primary, stack.primary_path
    gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'EXECUTE forget%')"
    add = "INSERT INTO users VALUES ('alice', '1990-05-17', 1, now(), now())"
    route = PostgreSQL(
        lambda: primary.uri(DATABASE, path.port), connect_timeout=5, statement_timeout=1
    )
    connection = route.connect(time.monotonic() + 5)
    assert connection.forget(["alice"], time.monotonic() + 5) == {}
    primary.query(add)
    assert connection.forget(["alice"], time.monotonic() + 5) == {"alice": True}
    network_recovers = path.hold()
    with pytest.raises(DatabaseUnavailable):
        connection.forget(["alice"], time.monotonic() + 0.2)
    connection.close()
    primary.query(add)
    network_recovers.set()
    eventually(lambda: primary.query(gone)[0][0])
    assert exists(stack)


def test_a_user_whose_erasure_was_repeated_was_there(stack: Stack) -> None:
    primary, path = stack.primary, stack.primary_path
    primary.query("INSERT INTO users VALUES ('alice', '1990-05-17', 1, now(), now())")
    waits = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity"
        " WHERE query LIKE 'EXECUTE forget%' AND wait_event_type = 'Lock')"
    )
    with ThreadPoolExecutor(1) as pool:
        with primary.holding("SELECT FROM users FOR UPDATE", DATABASE):
            erasing = pool.submit(forget, "alice", **stack.settings)
            eventually(lambda: primary.query(waits)[0][0])
            answers = path.hold()
        eventually(lambda: not exists(stack))
        path.reset()
        answers.set()
        assert said(erasing.result()) != NO_SUCH_USER


def test_a_user_may_be_erased_and_still_be_cached(stack: Stack, cut_off: dict[str, str]) -> None:
    cut_off = cut_off | {"STATEMENT_TIMEOUT": "0.5"}
    with everywhere(stack) as clients:
        assert clients[0].put("alice", "1990-05-17").status == 204
        become_cached(stack, clients)
        # Nobody can suspend the cache.
        with stack.primary.holding("SELECT FROM cache_use FOR UPDATE", DATABASE):
            code, out, error = said(forget("alice", **cut_off))
            assert (code, out) == (3, "")
            assert error.startswith(
                "hello: it is erased from the database, and may still be shown from the cache,"
                " so run this again: "
            )
            assert not exists(stack)
            assert statuses(clients) == {200}
        assert said(forget("alice", **cut_off)) == NO_SUCH_USER
        assert statuses(clients) == {404}


def test_a_role_that_may_not_delete_serves_and_does_not_erase(stack: Stack) -> None:
    primary = stack.primary
    role = primary.create_role(SECRET, DATABASE)
    port = stack.primary_path.port
    uri = primary.uri(DATABASE, port, role=role, password=SECRET)
    settings = stack.settings | {"DB_URI": uri}
    with (
        Service(**settings, WEB_CONCURRENCY="2").wait_until() as service,
        workers(service) as clients,
    ):
        assert clients[0].put("alice", "1990-05-17").status == 204
        refused = "hello: nothing was erased: permission denied for table users"
        assert said(forget("alice", **settings)) == (3, "", refused)
        assert statuses(clients) == {200}
        # This is all that it needs.
        primary.query(f"REVOKE ALL ON users FROM {role}", DATABASE)
        primary.query(f"GRANT SELECT, DELETE ON users TO {role}", DATABASE)
        assert said(forget("alice", **settings)) == ERASED
        assert statuses(clients) == {404}


def test_a_role_that_may_not_suspend_the_cache_erases_nobody(
    stack: Stack, cut_off: dict[str, str]
) -> None:
    primary = stack.primary
    role = primary.create_role(SECRET, DATABASE)
    primary.query(f"GRANT DELETE ON users TO {role}", DATABASE)
    primary.query(f"REVOKE UPDATE ON cache_use FROM {role}", DATABASE)
    mine = {"DB_URI": primary.uri(DATABASE, role=role, password=SECRET)}
    primary.query("INSERT INTO users VALUES ('alice', '1990-05-17', 1, now(), now())")
    refused = "hello: nothing was erased: the role may not update the table cache_use"
    # A cache that is there may be another one than was used last.
    for settings in (cut_off, stack.settings):
        assert said(forget("alice", **(settings | mine))) == (3, "", refused)
        assert exists(stack)


def test_an_old_schema(shared_cluster: Cluster, empty_database: str) -> None:
    code, out, error = said(forget("alice", DB_URI=shared_cluster.uri(empty_database)))
    assert (code, out) == (3, "")
    assert error.startswith("hello: nothing was erased: the schema lacks 0001_create_users")


# Names, settings, and SQLite.


def test_a_database_in_memory() -> None:
    memory = "hello: DB_URI: what is in the memory of a service ends with it"
    assert said(forget("alice")) == (2, "", memory)


def test_a_wrong_setting() -> None:
    code, out, error = said(forget("alice", CACHE_TTL="alice"))
    assert (code, out) == (2, "")
    assert error.startswith("hello: CACHE_TTL: ")


@pytest.fixture
def file(tmp_path: Path) -> str:
    uri = f"sqlite:///{tmp_path / 'hello.db'}"
    assert migrate(uri).returncode == 0
    return uri


@pytest.mark.parametrize("name", ["", "alice smith", "..", "x" * 65, b"alice\xff", "../alice"])
def test_a_username_that_cannot_be(file: str, name: str) -> None:
    code, out, error = said(forget(name, DB_URI=file))
    assert (code, out) == (2, "")
    assert error.startswith("hello: USERNAME: ")


def test_a_username_follows_the_pattern_of_the_settings(file: str) -> None:
    assert said(forget("alice", DB_URI=file)) == NO_SUCH_USER
    code, _, error = said(forget("alice", DB_URI=file, USERNAME_PATTERN="[A-Z]+"))
    assert (code, error) == (2, "hello: USERNAME: A username must match [A-Z]+.")


def test_a_username_that_the_database_cannot_store(shared_cluster: Cluster) -> None:
    shared_cluster.query("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    uri = shared_cluster.uri("latin")
    assert migrate(uri).returncode == 0
    stored = "hello: USERNAME: the database can store no such name"
    assert said(forget("Надя", DB_URI=uri)) == (2, "", stored)


@pytest.mark.parametrize("name", ["alice", "-x", "--help", "Zoë", "Zoe\u0308"])
def test_a_file_is_shared_with_those_who_serve_from_it(file: str, name: str) -> None:
    with (
        Service(DB_URI=file, WEB_CONCURRENCY="2").wait_until() as service,
        workers(service) as clients,
    ):
        assert clients[0].put(name, "1990-05-17").status == 204
        assert statuses(clients, name) == {200}
        assert said(forget(name, DB_URI=file)) == ERASED
        assert statuses(clients, name) == {404}
        assert said(forget(name, DB_URI=file)) == NO_SUCH_USER


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "hello.db"
    missing = "hello: nothing was erased: the SQLite file is not there"
    assert said(forget("alice", DB_URI=f"sqlite:///{path}")) == (3, "", missing)
    assert not path.exists()
