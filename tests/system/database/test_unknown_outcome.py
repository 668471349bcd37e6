"""What a PUT that was answered 503 may still do: nothing that undoes a later 204."""

import time
from collections.abc import Iterator

import pytest

from tests.support.postgres import Cluster
from tests.support.processes import eventually, stopped
from tests.support.proxy import BLACKHOLE, PASS, REFUSE, Proxy
from tests.support.service import Client, Service, put

TIMEOUTS = {"STATEMENT_TIMEOUT": "2", "CONNECT_TIMEOUT": "2", "REQUEST_TIMEOUT": "3"}

#: Seconds by which the server begins with a statement, and with its time-out, later than the
#: client that sent it. It would be in time to save.
DELAY = 1.2

OLD, NEW, NEWEST = "1990-05-17", "1990-05-18", "1990-05-19"


@pytest.fixture
def service(shared_cluster: Cluster, database: str, proxy: Proxy) -> Iterator[Service]:
    """A service that reaches the database by a path that may fail, which has two addresses."""
    hosts = f"127.0.0.1:{proxy.port},127.0.0.1:{proxy.port}"
    uri = f"postgresql://postgres@{hosts}/{database}"
    with Service(DB_URI=uri, **TIMEOUTS).wait_until() as service:
        yield service


@pytest.fixture
def clients(service: Service) -> Iterator[list[Client]]:
    clients = [service.client() for _ in range(3)]
    for client in clients:
        assert client.request("GET", "/health/live").status == 200
    yield clients
    for client in clients:
        client.close()


@pytest.fixture
def other(shared_cluster: Cluster, database: str) -> Iterator[Client]:
    """A client of another service, whose path does not fail."""
    with (
        Service(DB_URI=shared_cluster.uri(database), **TIMEOUTS).wait_until() as service,
        service.client() as client,
    ):
        yield client


def _settle(service: Service, clients: list[Client]) -> None:
    """Wait until the service has begun with what they sent."""
    eventually(lambda: all(client.delivered for client in clients))
    with service.client() as client:
        assert client.request("GET", "/health/live").status == 200


def _stored(cluster: Cluster, database: str) -> dict[str, str]:
    return dict(cluster.query("SELECT username, date_of_birth::text FROM users", database))


def _writers(cluster: Cluster, database: str) -> list[tuple[str, str | None]]:
    """What each of the service's statements that save waits for."""
    return cluster.query(
        "SELECT pid, wait_event FROM pg_stat_activity WHERE datname = %s AND state = 'active'"
        " AND query LIKE 'EXECUTE save%%'",
        parameters=(database,),
    )


def _saver(cluster: Cluster, database: str) -> int | None:
    """The process of the one connection that has saved; it may do so again."""
    rows = cluster.query(
        "SELECT pid FROM pg_stat_activity WHERE datname = %s AND state = 'idle'"
        " AND query LIKE 'EXECUTE save%%'",
        parameters=(database,),
    )
    return rows[0][0] if len(rows) == 1 else None


def _is_gone(cluster: Cluster, pid: int) -> bool:
    return not cluster.query("SELECT FROM pg_stat_activity WHERE pid = %s", parameters=(pid,))


def _row(name: str) -> str:
    return f"SELECT FROM users WHERE username = '{name}' FOR UPDATE"


def test_what_waited_for_a_connection_is_not_saved_after_its_503(
    shared_cluster: Cluster,
    database: str,
    proxy: Proxy,
    service: Service,
    clients: list[Client],
    other: Client,
) -> None:
    first, rider, _ = clients
    assert first.put("alice", OLD).status == 204
    proxy.mode = BLACKHOLE
    first.send(*put("alice", NEW))
    _settle(service, [first])
    # It waits while that one does, then for a new connection, by the one address and the other.
    rider.send(*put("bob", NEW))
    _settle(service, [rider])
    assert rider.receive().status == 503
    assert other.put("bob", NEWEST).status == 204
    proxy.mode = PASS
    assert first.receive().status == 503
    # Saved by the same lane, after whatever it had begun with.
    eventually(lambda: first.put("carol", OLD).status == 204)
    assert _stored(shared_cluster, database)["bob"] == NEWEST


def test_a_batch_that_waits_for_one_row_does_not_change_another_after_its_503(
    shared_cluster: Cluster, database: str, service: Service, clients: list[Client], other: Client
) -> None:
    first, *riders = clients
    for name in ("alice", "bob", "zoe"):
        assert other.put(name, OLD).status == 204
    with shared_cluster.holding(_row("alice"), database):
        with shared_cluster.holding(_row("zoe"), database):
            start = time.monotonic()
            first.send(*put("zoe", NEW))
            _settle(service, [first])
            for rider, name in zip(riders, ("alice", "bob"), strict=True):
                rider.send(*put(name, NEW))
            # They have less time left than a statement may take.
            eventually(lambda: time.monotonic() - start > 1.6)
        # Both are in one statement, which waits for the first of its rows.
        assert [rider.receive().status for rider in riders] == [503, 503]
        assert other.put("bob", NEWEST).status == 204
    eventually(lambda: not _writers(shared_cluster, database))
    assert _stored(shared_cluster, database)["bob"] == NEWEST
    assert _stored(shared_cluster, database)["alice"] == OLD


@pytest.mark.parametrize("known", [True, False], ids=["change", "creation"])
def test_a_statement_that_got_its_row_after_its_503_changes_nothing(
    shared_cluster: Cluster,
    database: str,
    proxy: Proxy,
    clients: list[Client],
    known: bool,
) -> None:
    rider = clients[0]
    # The lane has its connection.
    assert rider.put("carol", OLD).status == 204
    if known:
        assert rider.put("bob", OLD).status == 204
    proxy.delay = DELAY
    change = f"UPDATE users SET date_of_birth = '{OLD}'"
    creation = f"INSERT INTO users VALUES ('bob', '{OLD}', 1, now(), now())"
    with shared_cluster.holding(change if known else creation, database):
        rider.send(*put("bob", NEW))
        assert rider.receive().status == 503
        # It goes on to wait for whoever holds the row, who changes nothing in the end.
        assert _writers(shared_cluster, database)
    eventually(lambda: not _writers(shared_cluster, database))
    assert _stored(shared_cluster, database).get("bob") == (OLD if known else None)


def test_a_statement_that_waits_for_the_table_changes_nothing_after_its_503(
    shared_cluster: Cluster, database: str, proxy: Proxy, clients: list[Client]
) -> None:
    rider = clients[0]
    assert rider.put("bob", OLD).status == 204
    proxy.delay = DELAY
    with shared_cluster.locked(database):
        assert rider.put("bob", NEW).status == 503
        assert _writers(shared_cluster, database)
    eventually(lambda: not _writers(shared_cluster, database))
    assert _stored(shared_cluster, database) == {"bob": OLD}


@pytest.mark.parametrize("away", [False, True], ids=["repeated", "sent again"])
def test_what_arrives_after_its_connection_was_reset_does_not_undo_a_later_write(
    shared_cluster: Cluster,
    database: str,
    proxy: Proxy,
    service: Service,
    clients: list[Client],
    other: Client,
    away: bool,
) -> None:
    sender = clients[0]
    assert sender.put("alice", OLD).status == 204
    pid = eventually(lambda: _saver(shared_cluster, database))
    late = proxy.hold()
    sender.send(*put("alice", NEW))
    eventually(lambda: proxy.keeps)
    if away:
        proxy.mode = REFUSE
    proxy.reset_clients()
    assert sender.receive().status == (503 if away else 204)
    proxy.mode = PASS
    if away:
        eventually(lambda: sender.put("alice", NEW).status == 204)
    assert other.put("alice", NEWEST).status == 204
    late.set()
    eventually(lambda: not proxy.keeps)
    eventually(lambda: _is_gone(shared_cluster, pid))
    assert _stored(shared_cluster, database) == {"alice": NEWEST}
    assert sender.get("alice").body == other.get("alice").body


def test_what_its_server_cannot_end_is_not_repeated_in_its_time(
    shared_cluster: Cluster, database: str, proxy: Proxy, clients: list[Client], other: Client
) -> None:
    sender = clients[0]
    assert sender.put("alice", OLD).status == 204
    pid = eventually(lambda: _saver(shared_cluster, database))
    late = proxy.hold()
    with stopped(pid):
        sender.send(*put("alice", NEW))
        eventually(lambda: proxy.keeps)
        proxy.reset_clients()
        answer = sender.receive().status
        assert other.put("alice", NEWEST).status == 204
        late.set()
        eventually(lambda: not proxy.keeps)
    eventually(lambda: _is_gone(shared_cluster, pid))
    assert answer in (204, 503)
    assert _stored(shared_cluster, database) == {"alice": NEWEST}
