"""The service while PostgreSQL, or the way to it, is out of order."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count

import pytest

from hello.database.guard import PAUSE
from tests.support.postgres import Cluster
from tests.support.processes import eventually
from tests.support.proxy import BLACKHOLE, PASS, REFUSE, Proxy
from tests.support.service import (
    LANES,
    PATIENT,
    Answer,
    Client,
    Crowd,
    Request,
    Service,
    day,
    get,
    load,
    put,
)

#: With these an answer takes about a second at worst. BOUND, also in seconds, is far
#: above that, for slow machines, and far below what a forgotten deadline would take.
IMPATIENT = {"CONNECT_TIMEOUT": "0.5", "STATEMENT_TIMEOUT": "0.5", "REQUEST_TIMEOUT": "1"}
BOUND = 6.0

Fault = Callable[[Cluster, str, Proxy], AbstractContextManager[None]]


@contextmanager
def refused(cluster: Cluster, database: str, proxy: Proxy) -> Iterator[None]:
    proxy.mode = REFUSE
    proxy.reset()
    yield
    proxy.mode = PASS


@contextmanager
def blackhole(cluster: Cluster, database: str, proxy: Proxy) -> Iterator[None]:
    proxy.mode = BLACKHOLE
    yield
    proxy.mode = PASS


def slow_statement(cluster: Cluster, database: str, proxy: Proxy) -> AbstractContextManager[None]:
    return cluster.locked(database)


@pytest.fixture(params=[refused, blackhole, slow_statement], ids=lambda fault: fault.__name__)
def fault(request: pytest.FixtureRequest) -> Fault:
    fault: Fault = request.param
    return fault


@pytest.fixture
def service(shared_cluster: Cluster, database: str, proxy: Proxy) -> Iterator[Service]:
    uri = shared_cluster.uri(database, proxy.port)
    with Service(DB_URI=uri, **IMPATIENT).wait_until() as service:
        yield service


def _is_try_later(answer: Answer) -> bool:
    return (
        answer.status == 503
        and answer.headers["Content-Type"] == "application/problem+json"
        and answer.headers["Retry-After"] == "1"
        and answer.json["type"] == "/docs#problem-try-later"
        and answer.json["request_id"] == answer.headers["X-Request-ID"]
    )


def test_a_fault_is_answered_in_time_and_ends_without_a_restart(
    shared_cluster: Cluster, database: str, proxy: Proxy, service: Service, fault: Fault
) -> None:
    workers = service.workers
    probes = [("GET", f"/health{path}") for path in ("/live", "/startup", "/ready", "")]
    puts = [put(f"user-{number}", "1990-05-17") for number in range(16)]
    gets = [get(f"user-{number}") for number in range(16)]
    requests: list[Request] = [*probes, *puts, *gets]
    with Crowd(service, len(requests)) as crowd:
        assert {answer.status for answer in crowd.ask(requests)} <= {200, 204, 404}

        with fault(shared_cluster, database, proxy):
            # First on the connections that there are, then on those that take their place.
            for _ in range(2):
                start = time.monotonic()
                live, startup, ready, health, *answers = crowd.ask(requests)
                assert time.monotonic() - start < BOUND
                assert all(_is_try_later(answer) for answer in answers)
                # Neither restarting the service would help nor asking others of it.
                assert (live.status, startup.status, ready.status) == (200, 200, 200)
                assert health.status == 503
                assert health.json["dependencies"]["primary"]["state"] == "down"

        service.wait_until("/hello/user-0")
        live, startup, ready, health, *answers = crowd.ask(requests)
        assert (live.status, startup.status, ready.status) == (200, 200, 200)
        assert health.status == 200
        assert health.json["dependencies"]["primary"]["state"] == "up"
        assert {answer.status for answer in crowd.ask([*probes, *puts, *puts])} == {200, 204}
        assert {answer.status for answer in crowd.ask([*probes, *gets, *gets])} == {200}
    assert service.workers == workers
    # Nothing is left behind: no connection beyond those of the lanes, and no transaction.
    idle = [("idle", "ClientRead")] * LANES
    eventually(lambda: shared_cluster.sessions(database) == idle)
    # The log has a line when it begins and one when it ends, not one for each request.
    assert 1 <= service.log.count("the primary does not answer") <= 2 * LANES
    assert 1 <= service.log.count("the primary answers again") <= 2 * LANES


@pytest.fixture
def patient_service(shared_cluster: Cluster, database: str, proxy: Proxy) -> Iterator[Service]:
    uri = shared_cluster.uri(database, proxy.port)
    with Service(DB_URI=uri, **PATIENT).wait_until() as service:
        yield service


def test_an_idle_connection_that_was_reset_fails_no_request(
    proxy: Proxy, patient_service: Service
) -> None:
    with patient_service.client() as client:
        for number in range(10):
            assert client.put("alice", day(number)).status == 204
            assert client.get("alice").status == 200
            proxy.reset()


@pytest.mark.parametrize("end", ["reset", "terminated"])
def test_connections_that_end_under_load_fail_no_request(
    shared_cluster: Cluster, database: str, proxy: Proxy, patient_service: Service, end: str
) -> None:
    answers: list[int] = []
    numbers = count()

    def request(client: Client, number: int) -> None:
        name = f"user-{number // 2}"
        if number % 2:
            answers.append(client.get(name).status)
        else:
            answers.append(client.put(name, day(next(numbers))).status)

    def reconnected(before: set[int]) -> set[int]:
        lanes = set(shared_cluster.lanes(database))
        return lanes if len(lanes) == LANES and not lanes & before else set()

    with load(patient_service, 16, request) as running:
        lanes: set[int] = set()
        for _ in range(10):
            # What breaks once more while it is tried once more does fail: wait until every
            # lane has a new connection, and is not trying again.
            lanes = eventually(lambda: reconnected(lanes))  # noqa: B023
            running.go_on()
            if end == "reset":
                proxy.reset()
            else:
                assert shared_cluster.terminate_sessions(database) == LANES
        running.go_on()
    assert set(answers) <= {200, 204, 404}


def test_few_connects_are_tried_while_each_is_reset_however_many_requests_come(
    shared_cluster: Cluster, database: str, proxy: Proxy
) -> None:
    workers = 2
    uri = shared_cluster.uri(database, proxy.port)
    statuses: list[int] = []

    def request(client: Client, number: int) -> None:
        kinds: list[Request] = [put("alice", "1990-05-17"), get("alice"), ("GET", "/health")]
        statuses.append(client.request(*kinds[number % 3]).status)

    with (
        Service(DB_URI=uri, WEB_CONCURRENCY=str(workers)).wait_until() as service,
        load(service, 24, request) as running,
    ):
        running.go_on()
        proxy.mode = REFUSE
        proxy.reset()
        running.go_on()
        began, before, first = time.monotonic(), proxy.accepted, len(statuses)
        eventually(lambda: len(statuses) - first > 1_000, within=60)
        tried, seconds = proxy.accepted - before, time.monotonic() - began
        assert set(statuses[first:]) == {503}
        # Each worker makes one at a time, and a pause before it.
        assert tried <= workers * (1 + seconds / PAUSE[0])
        proxy.mode = PASS
        eventually(lambda: set(statuses[-24:]) <= {200, 204})


def test_more_requests_than_may_wait_are_refused_at_once(
    shared_cluster: Cluster, database: str
) -> None:
    uri = shared_cluster.uri(database)
    settings = PATIENT | {"MAX_WAITING": "4", "READ_LANES": "1"}
    puts: list[Request] = [put(f"user-{number}", "1990-05-17") for number in range(20)]
    gets: list[Request] = [get(f"user-{number}") for number in range(20)]
    with (
        Service(DB_URI=uri, **settings).wait_until() as service,
        Crowd(service, 20) as crowd,
    ):
        for requests in (puts, gets):
            with shared_cluster.locked(database):
                crowd.send(requests)
                # One is under way and four wait. The others hear at once that they may not.
                eventually(lambda: sum(client.answered for client in crowd.clients) == 15)
            answers = crowd.receive()
            assert sum(map(_is_try_later, answers)) == 15
            assert sum(answer.status in (200, 204, 404) for answer in answers) == 5
            # There is room again.
            for client, request in zip(crowd.clients, requests, strict=True):
                assert client.request(*request).status in (200, 204, 404)


def test_a_statement_that_nobody_waits_for_is_given_up(
    shared_cluster: Cluster, database: str
) -> None:
    uri = shared_cluster.uri(database)
    with (
        Service(DB_URI=uri, STATEMENT_TIMEOUT="60", REQUEST_TIMEOUT="0.3").wait_until() as service,
        service.client() as client,
        shared_cluster.locked(database),
    ):
        for _ in range(5):
            assert client.get("alice").status == 503
            assert client.put("alice", "1990-05-17").status == 503
        eventually(lambda: len(shared_cluster.sessions(database)) <= LANES)


def test_a_write_that_was_answered_503_does_not_undo_a_later_one(
    shared_cluster: Cluster, database: str, proxy: Proxy, service: Service
) -> None:
    writer = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND query LIKE 'EXECUTE save%%'"
    with service.client() as client:
        assert client.put("alice", "1990-05-17").status == 204
        old = shared_cluster.query(writer, parameters=(database,))
        network_recovers = proxy.hold()
        assert client.put("alice", "1990-05-18").status == 503
        assert client.put("alice", "1990-05-19").status == 204
        network_recovers.set()
        eventually(lambda: old != shared_cluster.query(writer, parameters=(database,)))
        assert client.put("bob", "1990-05-19").status == 204
    rows = "SELECT date_of_birth::text FROM users WHERE username = 'alice'"
    assert shared_cluster.query(rows, database) == [("1990-05-19",)]
