"""The service on a real primary and real streaming replicas."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial

import pytest

from hello.database.replica import SILENCE
from hello.database.session import SCHEMA_TERM
from tests.support.postgres import Cluster
from tests.support.processes import eventually
from tests.support.proxy import PASS, REFUSE
from tests.support.service import Client, Service, migrate
from tests.support.stack import DATABASE, Stack, blackholed
from tests.support.usage import batches
from tests.support.workload import says

OLD, NEW, NEWER = "1990-05-17", "1991-06-18", "1992-07-19"
WARNING = '110 - "Response is Stale"'


@pytest.fixture
def service(stack: Stack) -> Iterator[Service]:
    """The service on the primary and the replica, without the cache."""
    with stack.service(CACHE_URI="") as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with service.client() as client:
        yield client


@pytest.fixture
def own() -> Iterator[Stack]:
    """A primary and a replica that a test may promote or rebuild."""
    with Stack(replicas=1) as stack:
        yield stack


def shows(client: Client, name: str, born: str | None) -> bool:
    """If a user is found with a date of birth, or not at all if that is None.

    The answer must be one of a healthy database.
    """
    answer = client.get(name)
    assert answer.status in (200, 404), answer.body
    assert answer.headers["Warning"] is None
    return says(answer, born)


def reads(client: Client, cluster: Cluster) -> bool:
    """If a GET asks this server for rows."""
    before = batches(cluster)
    assert client.get("alice").status == 200
    return batches(cluster) > before


# The fence


def test_a_replica_that_has_caught_up_serves_the_reads(stack: Stack, client: Client) -> None:
    assert client.put("alice", OLD).status == 204
    stack.catch_up(stack.replica)

    def serves_most() -> bool:
        before = batches(stack.primary), batches(stack.replica)
        for _ in range(10):
            assert shows(client, "alice", OLD)
            assert shows(client, "bob", None)
        by_primary = batches(stack.primary) - before[0]
        by_replica = batches(stack.replica) - before[1]
        return by_replica > by_primary

    # Once it takes more than its 5 ms, the primary serves the next quarter of a second alone: that
    # is longer than these reads take.
    eventually(serves_most)


def test_no_read_after_a_write_sees_the_past(stack: Stack, service: Service) -> None:
    with (
        stack.service(CACHE_URI="") as other,
        service.client() as writer,
        other.client() as reader,
    ):
        before = batches(stack.replica)
        for n in range(200):
            date = f"1990-{n % 12 + 1:02}-{n % 28 + 1:02}"
            assert writer.put("alice", date).status == 204
            assert shows(reader, "alice", date)
        assert batches(stack.replica) > before


def test_while_replay_is_paused_the_primary_serves(stack: Stack, client: Client) -> None:
    client.put("alice", OLD)
    with stack.replica_paused():
        for n in range(20):
            date = f"1991-{n % 12 + 1:02}-{n % 28 + 1:02}"
            assert client.put("alice", date).status == 204
            assert client.put(f"user-{n}", NEW).status == 204
            assert shows(client, "alice", date)
            assert shows(client, f"user-{n}", NEW)
        rows = stack.replica.query("SELECT date_of_birth::text FROM users", DATABASE)
        assert rows in ([], [(OLD,)])
    eventually(lambda: not reads(client, stack.primary))
    assert shows(client, "alice", date)


def test_a_log_that_was_switched_does_not_look_like_a_lag(stack: Stack, client: Client) -> None:
    client.put("alice", OLD)
    stack.primary.query("SELECT pg_switch_wal()")
    stack.primary.query("CHECKPOINT")
    stack.catch_up(stack.replica)
    eventually(lambda: not reads(client, stack.primary))


def test_roles_that_may_not_see_the_system_identifier(stack: Stack) -> None:
    primary = stack.primary
    primary.query("DROP ROLE IF EXISTS restricted")
    primary.query("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC", DATABASE)
    try:
        primary.query("CREATE ROLE restricted LOGIN")
        primary.query("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO restricted")
        stack.catch_up(stack.replica)
        settings = {
            "DB_URI": primary.uri(DATABASE, role="restricted"),
            "DB_READ_URI": stack.replica.uri(DATABASE, role="restricted"),
            "CACHE_URI": "",
        }
        with stack.service(**settings) as service, service.client() as client:
            assert client.put("alice", OLD).status == 204
            eventually(lambda: not reads(client, primary))
    finally:
        primary.query("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC", DATABASE)


# A replica that fails


def test_a_replica_that_is_killed_and_restarted(stack: Stack, client: Client) -> None:
    client.put("alice", OLD)
    eventually(lambda: not reads(client, stack.primary))
    with stack.replica_killed():
        for n in range(1, 20):
            assert client.put("alice", f"1991-06-{n:02}").status == 204
            assert shows(client, "alice", f"1991-06-{n:02}")
        assert client.request("GET", "/health/ready").status == 200
    eventually(lambda: not reads(client, stack.primary))
    assert shows(client, "alice", "1991-06-19")


def test_a_replica_whose_network_is_cut(stack: Stack, client: Client) -> None:
    client.put("alice", OLD)
    eventually(lambda: not reads(client, stack.primary))
    stack.replica_path.mode = REFUSE
    stack.replica_path.reset()
    for n in range(1, 20):
        assert client.put("alice", f"1991-06-{n:02}").status == 204
        assert shows(client, "alice", f"1991-06-{n:02}")
    stack.replica_path.mode = PASS
    eventually(lambda: not reads(client, stack.primary))


def test_a_replica_that_does_not_answer(stack: Stack) -> None:
    timeout = 4.0
    with (
        stack.service(CACHE_URI="", STATEMENT_TIMEOUT=str(timeout)) as service,
        service.client() as client,
    ):
        client.put("alice", OLD)
        eventually(lambda: not reads(client, stack.primary))
        slowest = 0.0
        with stack.replica_blackholed():
            for n in range(1, 20):
                assert client.put("alice", f"1991-06-{n:02}").status == 204
                start = time.monotonic()
                assert shows(client, "alice", f"1991-06-{n:02}")
                slowest = max(slowest, time.monotonic() - start)
            assert client.request("GET", "/health/ready").status == 200
        # The primary is there: nobody waits for a replica until its statement times out.
        assert slowest < timeout / 2
        eventually(lambda: not reads(client, stack.primary))


def test_a_replica_that_is_promoted(own: Stack) -> None:
    with own.service() as service, service.client() as client:
        client.put("alice", OLD)
        eventually(lambda: not reads(client, own.primary))
        own.replica.promote()
        own.replica.query(f"UPDATE users SET date_of_birth = '{NEWER}'", DATABASE)
        assert shows(client, "alice", OLD)
        assert client.put("alice", NEW).status == 204
        for _ in range(10):
            assert shows(client, "alice", NEW)


def test_a_replica_that_becomes_the_primary(own: Stack) -> None:
    uri = own.primary.uri(DATABASE).replace(
        f":{own.primary.port}", f":{own.primary.port},127.0.0.1:{own.replica.port}"
    )
    with own.service(DB_URI=uri) as service, service.client() as client:
        client.put("alice", OLD)
        own.primary.kill()
        eventually(lambda: client.get("alice").headers["Warning"] == WARNING)
        own.replica.promote()
        eventually(lambda: client.put("alice", NEW).status == 204)
        for _ in range(10):
            assert shows(client, "alice", NEW)
    assert own.replica.query("SELECT date_of_birth::text FROM users", DATABASE) == [(NEW,)]


def test_a_primary_that_goes_on_after_a_failover_is_not_believed(own: Stack) -> None:
    ports = f":{own.primary.port},127.0.0.1:{own.replica.port}"
    settings = {
        "DB_URI": own.primary.uri(DATABASE).replace(f":{own.primary.port}", ports),
        "DB_READ_URI": "",
        "STATEMENT_TIMEOUT": "1",
        "CONNECT_TIMEOUT": "0.5",
        "REQUEST_TIMEOUT": "2",
    }
    with own.service(**settings) as service, service.client() as client:
        assert client.put("alice", OLD).status == 204
        # A lane that reads and one that writes have a connection.
        eventually(lambda: shows(client, "alice", OLD) and len(own.primary.lanes(DATABASE)) == 2)
        own.catch_up(own.replica)
        with own.primary.paused():
            own.replica.promote()
            eventually(lambda: client.put("alice", NEW).status == 204)
        # The one that reads has asked nobody since.
        for _ in range(10):
            assert shows(client, "alice", NEW)
        # Nor is the old one believed when only it can be reached.
        own.replica.kill()
        eventually(lambda: client.get("alice").status == 503)
        for _ in range(3):
            assert client.get("alice").status == 503
            assert client.put("alice", NEWER).status == 503
        assert own.stored()["alice"][0] == OLD
        own.replica.start()
        eventually(lambda: client.put("alice", NEWER).status == 204)
        assert shows(client, "alice", NEWER)


def test_a_replica_that_is_rebuilt(own: Stack) -> None:
    with own.service() as service, service.client() as client:
        client.put("alice", OLD)
        own.replica.promote()
        own.replica.destroy()
        client.put("alice", NEW)
        assert shows(client, "alice", NEW)
        rebuilt = Cluster()
        rebuilt.port = own.replica.port
        own.replicas[0] = rebuilt.create_standby(own.primary).start()
        eventually(lambda: not reads(client, own.primary))
        assert shows(client, "alice", NEW)


def test_a_replica_of_another_primary_is_not_used(own: Stack, stack: Stack) -> None:
    # It has replayed more than the primary has ever written, and holds another date.
    own.primary.query(f"INSERT INTO users VALUES ('alice', '{OLD}', 1, now(), now())", DATABASE)
    _write_log(own.primary, megabytes=100)
    own.catch_up(own.replica)
    uri = own.replica.uri(DATABASE)
    with stack.service(DB_READ_URI=uri, CACHE_URI="") as service, service.client() as client:
        assert client.put("alice", NEW).status == 204
        for _ in range(10):
            assert shows(client, "alice", NEW)
        assert "replica 1 does not follow this primary" in service.log


def test_a_replica_that_a_failover_left_behind_is_not_used() -> None:
    # Two replicas; the one that had received less is promoted. The other has replayed, of a
    # history that is no more, further than the new primary has come.
    with Stack(replicas=2) as own:
        ahead, promoted = own.replicas
        own.primary.query(f"INSERT INTO users VALUES ('alice', '{OLD}', 1, now(), now())", DATABASE)
        own.catch_up(promoted)
        promoted.stop()
        _write_log(own.primary, megabytes=20)
        own.catch_up(ahead)
        own.primary.kill()
        promoted.start().promote()
        settings = {"DB_URI": promoted.uri(DATABASE), "DB_READ_URI": ahead.uri(DATABASE)}
        with own.service(**settings) as service, service.client() as client:
            assert client.put("alice", NEW).status == 204
            for _ in range(10):
                assert shows(client, "alice", NEW)


def test_a_replica_that_follows_a_failover_serves_at_once() -> None:
    # No checkpoint has told it yet on which timeline it is.
    with Stack(replicas=2) as own:
        promoted, follower = own.replicas
        hosts = f"127.0.0.1:{own.primary.port},127.0.0.1:{promoted.port}"
        uri = own.primary.uri(DATABASE).replace(f"127.0.0.1:{own.primary.port}", hosts)
        settings = {"DB_URI": uri, "DB_READ_URI": follower.uri(DATABASE)}
        with own.service(**settings) as service, service.client() as client:
            assert client.put("alice", OLD).status == 204
            eventually(lambda: not reads(client, own.primary))
            own.catch_up(promoted)
            own.primary.kill()
            promoted.promote()
            follower.follow(promoted)
            eventually(lambda: client.put("alice", NEW).status == 204)
            follower.catch_up(promoted)
            eventually(lambda: not reads(client, promoted), within=5)
            assert shows(client, "alice", NEW)
            # And stands in for the new primary.
            promoted.kill()
            answer = client.get("alice")
            assert (answer.status, answer.headers["Warning"]) == (200, WARNING)
            assert says(answer, NEW)


def test_a_read_uri_that_names_the_primary(stack: Stack) -> None:
    uri = stack.primary.uri(DATABASE)
    with stack.service(DB_READ_URI=uri, CACHE_URI="") as service, service.client() as client:
        assert client.put("alice", OLD).status == 204
        assert shows(client, "alice", OLD)
        assert reads(client, stack.primary)


def test_a_replica_that_lacks_the_schema(stack: Stack) -> None:
    primary, replica = stack.primary, stack.replica
    primary.query("DROP DATABASE IF EXISTS later WITH (FORCE)")
    primary.query("CREATE DATABASE later")
    stack.catch_up(replica)
    with stack.replica_paused():
        assert migrate(primary.uri("later")).returncode == 0
        settings = {"DB_URI": primary.uri("later"), "DB_READ_URI": replica.uri("later")}
        with stack.service(**settings, CACHE_URI="") as service, service.client() as client:
            assert client.put("alice", OLD).status == 204
            assert shows(client, "alice", OLD)
            state = client.request("GET", "/health").json["dependencies"]["replica 1"]
            assert state["state"] == "down"
            replica.query("SELECT pg_wal_replay_resume()")
            eventually(lambda: not reads(client, primary))
            assert shows(client, "alice", OLD)


# Several replicas


@pytest.fixture(scope="module")
def two() -> Iterator[Stack]:
    with Stack(replicas=2) as stack:
        yield stack


@pytest.fixture(params=["repeated URIs", "hosts by commas"])
def pair(request: pytest.FixtureRequest, two: Stack) -> tuple[Stack, str]:
    """A primary with two replicas, and how DB_READ_URI names them."""
    two.heal()
    two.empty()
    uri = two.settings["DB_READ_URI"]
    if request.param == "hosts by commas":
        first, second = (f"127.0.0.1:{path.port}" for path in two.replica_paths)
        uri = two.primary.uri(DATABASE).replace(
            f"127.0.0.1:{two.primary.port}", f"{first},{second}"
        )
    return two, uri


def test_each_of_several_replicas_serves_and_stands_in_for_the_other(
    pair: tuple[Stack, str],
) -> None:
    stack, uri = pair
    with (
        stack.service(DB_READ_URI=uri, READ_LANES="1") as service,
        service.client() as client,
    ):

        def only(replica: Cluster) -> bool:
            return reads(client, replica) and not reads(client, stack.primary)

        client.put("alice", OLD)
        eventually(lambda: reads(client, stack.replicas[0]))
        for number, path in enumerate(stack.replica_paths):
            other = stack.replicas[1 - number]
            path.mode = REFUSE
            path.reset()
            eventually(partial(only, other))
            state = client.request("GET", "/health").json
            assert state["status"] == "degraded"
            assert state["dependencies"][f"replica {number + 1}"]["state"] == "down"
            assert state["dependencies"][f"replica {2 - number}"]["state"] == "up"
            path.mode = PASS
        assert client.put("alice", NEW).status == 204
        assert shows(client, "alice", NEW)


def test_replicas_share_the_load(pair: tuple[Stack, str]) -> None:
    stack, uri = pair
    with stack.service(DB_READ_URI=uri) as service, service.client() as client:
        for replica in stack.replicas:
            stack.catch_up(replica)
        before = [batches(replica) for replica in stack.replicas]

        def both() -> bool:
            client.get("alice")
            client.get("alice")
            after = [batches(replica) for replica in stack.replicas]
            return all(b > a for a, b in zip(before, after, strict=True))

        eventually(both)


# The primary away


def test_while_the_primary_is_away_replicas_answer_and_say_that_it_may_be_old(
    stack: Stack, service: Service, client: Client
) -> None:
    client.put("alice", OLD)
    stack.catch_up(stack.replica)
    with stack.primary_killed():
        for _ in range(5):
            answer = client.get("alice")
            assert (answer.status, answer.headers["Warning"]) == (200, WARNING)
            assert says(answer, OLD)
            answer = client.get("bob")
            assert (answer.status, answer.headers["Warning"]) == (404, WARNING)
            answer = client.put("alice", NEW)
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert client.request("GET", "/health/ready").status == 200
        assert client.request("GET", "/health/live").status == 200
        health = client.request("GET", "/health")
        assert health.status == 200
        assert health.json["status"] == "degraded"
        assert health.json["dependencies"]["primary"]["state"] == "down"
        assert health.json["dependencies"]["replica 1"]["state"] == "up"
    eventually(lambda: client.put("alice", NEW).status == 204)
    eventually(lambda: client.get("alice").headers["Warning"] is None)
    assert shows(client, "alice", NEW)


def test_while_the_primary_does_not_answer_replicas_do(stack: Stack) -> None:
    with (
        stack.service(
            CACHE_URI="", STATEMENT_TIMEOUT="0.5", CONNECT_TIMEOUT="0.5", REQUEST_TIMEOUT="3"
        ) as service,
        service.client() as client,
    ):
        client.put("alice", OLD)
        stack.catch_up(stack.replica)
        with blackholed(stack.primary_path):
            for _ in range(3):
                answer = client.get("alice")
                assert (answer.status, answer.headers["Warning"]) == (200, WARNING)
                assert says(answer, OLD)
            start = time.monotonic()
            assert client.put("alice", NEW).status == 503
            assert time.monotonic() - start < 3 + 1
        eventually(lambda: client.put("alice", NEWER).status == 204)
        eventually(lambda: client.get("alice").headers["Warning"] is None)
        assert shows(client, "alice", NEWER)


@pytest.fixture(params=[1, 3], ids=["an address", "three addresses"])
def addresses(request: pytest.FixtureRequest, stack: Stack) -> dict[str, str]:
    """DB_URI, with so many addresses that fall silent with the path to the primary."""
    host = f"127.0.0.1:{stack.primary_path.port}"
    hosts = ",".join([host] * request.param)
    return {"DB_URI": stack.primary.uri(DATABASE).replace(f"127.0.0.1:{stack.primary.port}", hosts)}


def test_few_reads_wait_for_a_primary_that_is_silent(
    stack: Stack, addresses: dict[str, str]
) -> None:
    limit = 4.0
    settings = {"STATEMENT_TIMEOUT": str(limit), "CONNECT_TIMEOUT": str(limit), "READ_LANES": "2"}
    with (
        stack.service(CACHE_URI="", **addresses, **settings) as service,
        service.client() as client,
    ):
        assert client.put("alice", OLD).status == 204
        stack.catch_up(stack.replica)
        eventually(lambda: not reads(client, stack.primary))
        took: list[float] = []
        with blackholed(stack.primary_path):
            # Long enough for a try once in a second to show.
            begun = time.monotonic()
            while time.monotonic() - begun < 2 * limit:
                start = time.monotonic()
                answer = client.get("alice")
                took.append(time.monotonic() - start)
                assert (answer.status, answer.headers["Warning"]) == (200, WARNING)
                assert says(answer, OLD)
                assert client.request("GET", "/health/ready").status == 200
                time.sleep(0.01)
            health = client.request("GET", "/health").json
            assert health["dependencies"]["replica 1"]["breaker"] == "closed"
        assert max(took) < limit / 2
        # One for each lane, at most; the others ask the replica alone.
        assert sum(seconds > SILENCE * 0.8 for seconds in took) <= 2
        eventually(lambda: client.get("alice").headers["Warning"] is None)
        assert shows(client, "alice", OLD)


def test_a_service_that_starts_while_the_primary_is_silent_becomes_ready_by_a_replica(
    stack: Stack, addresses: dict[str, str]
) -> None:
    stack.catch_up(stack.replica)
    with (
        blackholed(stack.primary_path),
        stack.service(CACHE_URI="", **addresses) as service,
        service.client() as client,
    ):
        for _ in range(10):
            assert client.get("alice").headers["Warning"] == WARNING


def test_a_primary_that_is_slow_is_not_taken_for_away(stack: Stack) -> None:
    with (
        stack.service(CACHE_URI="", READ_LANES="1") as service,
        service.client() as client,
    ):
        assert client.put("alice", OLD).status == 204
        stack.catch_up(stack.replica)
        assert shows(client, "alice", OLD)
        stack.primary_path.delay = SILENCE / 5
        try:
            begun = time.monotonic()
            # Longer than a connection's schema is trusted.
            while time.monotonic() - begun < SCHEMA_TERM + 2:
                assert shows(client, "alice", OLD)
        finally:
            stack.primary_path.delay = 0.0


def test_a_primary_that_is_slow_to_connect_to_is_read_behind_the_fence(
    stack: Stack,
) -> None:
    """A connect takes longer than a reader waits for the fence; the connection is not lost."""
    stack.primary_path.delay = SILENCE / 5
    try:
        with stack.service(CACHE_URI="") as service, service.client() as client:
            assert client.put("alice", OLD).status == 204
            for _ in range(2):
                # Each lane has a connection in the end, and again after a reset.
                eventually(
                    lambda: all(client.get("alice").headers["Warning"] is None for _ in range(20)),
                    within=30,
                )
                stack.primary_path.reset()
    finally:
        stack.primary_path.delay = 0.0


# Health


def test_health_shows_each_replica_and_its_lag(stack: Stack, client: Client) -> None:
    client.put("alice", OLD)

    def replica() -> dict:
        shown: dict = client.request("GET", "/health").json["dependencies"]["replica 1"]
        return shown

    eventually(lambda: replica()["lag_bytes"] == 0)
    assert replica().keys() == {"state", "latency_ms", "breaker", "lag_bytes"}
    with stack.replica_paused():
        _write_log(stack.primary, megabytes=3)
        shown = replica()
        assert shown["state"] == "up"
        assert 3_000_000 < shown["lag_bytes"] < 30_000_000
        client.get("alice")
        assert replica()["breaker"] == "open"
    eventually(lambda: replica()["lag_bytes"] == 0)
    eventually(lambda: client.get("alice") and replica()["breaker"] == "closed")


def test_health_never_waits_longer_than_a_probe(stack: Stack) -> None:
    with stack.service() as service, service.client() as client:
        with (
            blackholed(stack.replica_path),
            blackholed(stack.cache_path),
            blackholed(stack.primary_path),
        ):
            start = time.monotonic()
            health = client.request("GET", "/health")
            # Three dependencies and one read, a second for each.
            assert time.monotonic() - start < 4 + 2
            assert health.status == 503
            assert health.json["status"] == "unavailable"
            states = {name: d["state"] for name, d in health.json["dependencies"].items()}
            assert states == {"primary": "down", "replica 1": "down", "cache": "down"}
            assert client.request("GET", "/health/live").status == 200
            assert client.request("GET", "/health/ready").status == 200
        service.wait_until("/health")


# Everything away


@pytest.fixture(params=["killed", "blackholed"])
def everything_away(
    request: pytest.FixtureRequest, stack: Stack
) -> Callable[[], AbstractContextManager[object]]:
    def away() -> AbstractContextManager[object]:
        faults = ExitStack()
        if request.param == "killed":
            faults.enter_context(stack.primary_killed())
            faults.enter_context(stack.replica_killed())
        else:
            faults.enter_context(blackholed(stack.primary_path))
            faults.enter_context(blackholed(stack.replica_path))
        return faults

    return away


def test_with_both_databases_away_cached_users_are_answered(
    stack: Stack, everything_away: Callable[[], AbstractContextManager[object]]
) -> None:
    timeout = 3.0
    settings = {"REQUEST_TIMEOUT": str(timeout), "STATEMENT_TIMEOUT": "1", "CONNECT_TIMEOUT": "1"}
    with stack.service(**settings) as service, service.client() as client:
        client.put("alice", OLD)
        client.put("bob", OLD)
        assert shows(client, "alice", OLD)
        with everything_away():
            for name in ("bob", "carol"):
                answer = client.get(name)
                assert answer.status == 503
                assert answer.headers["Retry-After"] == "1"
            for _ in range(10):
                answer = client.get("alice")
                assert answer.status == 200
                assert says(answer, OLD)
            start = time.monotonic()
            assert client.put("carol", NEW).status == 503
            assert time.monotonic() - start < timeout + 1
            assert client.request("GET", "/health/live").status == 200
            assert client.request("GET", "/health/ready").status == 200
        eventually(lambda: client.put("alice", NEW).status == 204)
        eventually(lambda: client.get("bob").headers["Warning"] is None)
        assert shows(client, "alice", NEW)
        assert shows(client, "bob", OLD)


def _write_log(cluster: Cluster, megabytes: int) -> None:
    """Let the write-ahead log of a primary grow."""
    cluster.query(
        "SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000000))"
        f" FROM generate_series(1, {megabytes})"
    )
    cluster.query("SELECT pg_switch_wal()")
