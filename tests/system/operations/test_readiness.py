"""Which instances get requests, and what they answer, while databases go away or go back.

The balancer obeys readiness, as a Service of Kubernetes does. docs/decisions/readiness.md says
why it is like this.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from hello.database import schema
from hello.uris import DatabaseURI
from tests.support.balancer import Kubelet, KubeProxy
from tests.support.postgres import Cluster
from tests.support.processes import eventually
from tests.support.service import Client, Service, check, load
from tests.support.stack import DATABASE, Stack
from tests.support.workload import says

OLD, NEW = "1990-05-17", "1991-06-18"

#: Seconds after which an answer counts as missing. REQUEST_TIMEOUT is 5.
HUNG = 10.0


@pytest.fixture
def kubelet() -> Iterator[Kubelet]:
    balancer = KubeProxy()
    with Kubelet(balancer) as kubelet:
        yield kubelet
    balancer.close()


class Visitors:
    """Clients that come through the balancer, each time on a new connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        #: How often each kind of request had each outcome.
        self.outcomes: Counter[tuple[str, object]] = Counter()
        self._number = 0

    def client(self) -> Client:
        return Client(self._port, HUNG)

    def visit(self, client: Client, number: int) -> None:
        time.sleep(0.01)
        self._number += 1
        new = f"user-{number}-{self._number}"
        for kind, path, body in (
            ("cached", "/hello/alice", None),
            ("uncached", f"/hello/{new}", None),
            ("PUT", f"/hello/{new}", f'{{"dateOfBirth": "{NEW}"}}'),
        ):
            client.close()
            try:
                answer = client.request("PUT" if body else "GET", path, body)
            except TimeoutError:
                outcome: object = "hung"
            except OSError:
                outcome = "refused"
            else:
                again = answer.status == 503 and answer.headers["Retry-After"] != "1"
                outcome = "503 without Retry-After" if again else answer.status
                if kind == "cached" and answer.status == 200:
                    assert says(answer, OLD)
            self.outcomes[kind, outcome] += 1

    def since(self, before: Counter[tuple[str, object]]) -> dict[str, set[object]]:
        found = self.outcomes - before
        return {kind: {o for k, o in found if k == kind} for kind, _ in found}


def test_while_postgresql_is_away_clients_get_answers_and_nobody_is_refused(
    stack: Stack, kubelet: Kubelet
) -> None:
    names = ["one", "two", "three"]
    with ExitStack() as exits:
        for name in names:
            service = exits.enter_context(stack.service(DB_READ_URI=""))
            kubelet.watch(name, service)
            with service.client() as client:
                assert client.put("alice", OLD).status == 204
                assert client.get("alice").status == 200
        eventually(lambda: kubelet.ready == set(names))
        visitors = Visitors(kubelet.port)
        with load(visitors, 6, visitors.visit) as running:
            running.go_on()
            with stack.primary_killed():
                running.go_on()
                before = Counter(visitors.outcomes)
                # More than often enough for those that say no to be dropped.
                kubelet.go_on(5 * Kubelet.FAILURES)
                running.go_on()
                away = visitors.since(before)
                assert kubelet.ready == set(names)

            def answered() -> bool:
                before = Counter(visitors.outcomes)
                running.go_on()
                return visitors.since(before) == {"cached": {200}, "uncached": {404}, "PUT": {204}}

            eventually(answered, within=30)
    assert away == {"cached": {200}, "uncached": {503}, "PUT": {503}}
    assert not {"hung", "refused", "503 without Retry-After"} & {o for _, o in visitors.outcomes}


def test_a_worker_that_is_replaced_while_the_database_is_away_is_as_ready_as_the_others(
    stack: Stack,
) -> None:
    settings = {"DB_READ_URI": "", "CACHE_URI": "", "WEB_CONCURRENCY": "2"}
    with stack.service(**settings) as service, stack.primary_killed():
        old = set(service.workers)
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(set(service.workers) - old) == 2)
        eventually(lambda: not old & set(service.workers))

        def ready() -> bool:
            with service.client() as client:
                assert client.request("GET", "/health/ready").status == 200
                return client.get("alice").status == 503

        for _ in range(20):
            assert ready()


@pytest.mark.parametrize("wrong", ["password", "schema"])
def test_a_release_that_cannot_read_gets_no_request_and_the_old_one_goes_on(
    shared_cluster: Cluster, own_database: str, kubelet: Kubelet, wrong: str
) -> None:
    good = shared_cluster.uri(own_database)
    role = shared_cluster.create_role("right", own_database)
    if wrong == "password":
        bad = shared_cluster.uri(own_database, role=role, password="wrong")
    else:
        shared_cluster.query(f"CREATE DATABASE {own_database}_old")
        bad = shared_cluster.uri(f"{own_database}_old")
    with (
        Service(DB_URI=good).wait_until() as old,
        Service(DB_URI=bad).wait_until("/health/live") as new,
    ):
        kubelet.watch("old", old)
        kubelet.watch("new", new)
        eventually(lambda: kubelet.ready == {"old"})
        kubelet.go_on(10)
        assert kubelet.ready == {"old"}
        with Client(kubelet.port) as client:
            for _ in range(20):
                assert client.put("alice", OLD).status == 204
                client.close()
        with new.client() as client:
            answer = client.request("GET", "/health/ready")
        reason = "the schema lacks" if wrong == "schema" else "the database does not answer"
        assert answer.json["status"] == "unavailable"
        assert answer.json["reason"].startswith(reason)


def test_a_probe_of_a_ready_service_asks_no_database(
    shared_cluster: Cluster, own_database: str
) -> None:
    with (
        Service(DB_URI=shared_cluster.uri(own_database)).wait_until() as service,
        service.client() as client,
    ):
        probes = 200
        before = shared_cluster.statements(own_database)
        for _ in range(probes):
            assert client.request("GET", "/health/ready").status == 200
        # Now and then the schema is looked at, in the background.
        assert shared_cluster.statements(own_database) - before < probes / 10


@pytest.fixture(params=["the primary alone", "with a replica and a cache"])
def settings(request: pytest.FixtureRequest, stack: Stack) -> dict[str, str]:
    alone = {"DB_READ_URI": "", "CACHE_URI": ""} if "alone" in request.param else {}
    return stack.settings | alone


def test_after_a_schema_was_reverted_all_say_the_same(
    stack: Stack, settings: dict[str, str]
) -> None:
    database = schema.connect(DatabaseURI(stack.primary.uri(DATABASE)), timeout=5)
    last = schema.NAMES[-1]
    try:
        with stack.service(**settings) as service, service.client() as client:
            assert client.put("alice", OLD).status == 204
            assert client.get("alice").status == 200

            def answers() -> dict[str, int]:
                return {
                    "GET": client.get("alice").status,
                    "PUT": client.put("alice", NEW).status,
                    "ready": client.request("GET", "/health/ready").status,
                    "health": client.request("GET", "/health").status,
                }

            schema.downgrade(database)
            gone = {"GET": 503, "PUT": 503, "ready": 503, "health": 503}
            eventually(lambda: answers() == gone, within=30)
            for _ in range(10):
                assert answers() == gone
            assert last in client.get("alice").json["detail"]
            assert last in client.request("GET", "/health/ready").json["reason"]
            health = client.request("GET", "/health").json
            assert health["status"] == "unavailable"
            assert last in health["dependencies"]["primary"]["reason"]
            found = check(**settings)
            assert (found["exit"], found["status"]) == (1, "unavailable")
            assert (found["schema"]["state"], found["get"], found["put"]) == (
                "outdated",
                "none",
                False,
            )

            schema.upgrade(database)
            back = {"GET": 200, "PUT": 204, "ready": 200, "health": 200}
            eventually(lambda: answers() == back, within=30)
            assert check(**settings)["put"]
    finally:
        schema.upgrade(database)
        database.close()
