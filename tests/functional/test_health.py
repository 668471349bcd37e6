import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from time import sleep

import gevent
import pytest

from hello.app import create_app
from hello.database import schema
from hello.database.session import CurrentSchema, Session
from hello.database.sqlite import SQLiteConnection, SQLiteFile
from hello.errors import DatabaseUnavailable, SchemaOutdated
from hello.lifecycle import Process
from hello.resources import health
from hello.uris import DatabaseURI
from hello.users import Users
from tests.support.client import Client, assert_problem
from tests.support.users import users_of

MakeClient = Callable[[Exception], Client]

DOWN = DatabaseUnavailable("connection refused")


@pytest.mark.parametrize(
    ("path", "status"), [("live", "live"), ("ready", "ready"), ("startup", "started")]
)
def test_probes_of_a_healthy_service(client: Client, path: str, status: str) -> None:
    response = client.ask("GET", f"/health/{path}")
    assert response.status_int == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.json == {"status": status}


def test_the_summary_names_each_dependency_with_its_latency(client: Client) -> None:
    response = client.ask("GET", "/health")
    assert response.status_int == 200
    document = response.json
    assert document.keys() == {"status", "dependencies"}
    assert document["status"] == "ok"
    assert document["dependencies"].keys() == {"database"}
    database = document["dependencies"]["database"]
    assert database.keys() == {"state", "latency_ms"}
    assert database["state"] == "up"
    assert database["latency_ms"] >= 0


def test_without_a_database_the_service_is_alive_but_not_ready(failing_client: MakeClient) -> None:
    client = failing_client(DOWN)
    for path in ("live", "startup"):
        assert client.ask("GET", f"/health/{path}").status_int == 200
    response = client.ask("GET", "/health/ready")
    assert response.status_int == 503
    assert response.json == {"status": "unavailable", "reason": "the database does not answer"}
    response = client.ask("GET", "/health")
    assert response.status_int == 503
    assert response.json == {
        "status": "unavailable",
        "dependencies": {"database": {"state": "down", "reason": "the database does not answer"}},
    }
    assert client.ask("HEAD", "/health/ready").status_int == 503
    assert client.ask("HEAD", "/health").status_int == 503


def test_a_draining_service_is_alive_and_answers_but_is_not_ready(users: Users) -> None:
    process = Process()
    client = Client(create_app(users, process=process))
    assert client.ask("GET", "/health/ready").status_int == 200
    process.draining = True
    response = client.ask("GET", "/health/ready")
    assert (response.status_int, response.json) == (503, {"status": "draining"})
    response = client.ask("GET", "/health")
    assert (response.status_int, response.json["status"]) == (503, "draining")
    assert client.ask("GET", "/health/live").status_int == 200
    assert client.ask("GET", "/health/startup").status_int == 200
    assert client.put_user("alice", "1990-05-17").status_int == 204


def test_only_readiness_and_the_summary_ask_the_database() -> None:
    deadlines = []

    def lane(batch: object, deadline: float) -> dict:
        deadlines.append(deadline)
        return {}

    client = Client(create_app(users_of([lane], [lane], timeout=60)))
    client.ask("GET", "/health/live")
    client.ask("GET", "/health/startup")
    assert deadlines == []
    client.ask("GET", "/health/ready")
    client.ask("GET", "/health")
    assert len(deadlines) == 2


def test_a_service_that_was_ready_stays_ready_and_no_probe_asks_again() -> None:
    asked: list[float] = []
    fail: list[Exception] = [DOWN]

    def lane(batch: object, deadline: float) -> dict:
        asked.append(deadline)
        for ex in fail:
            raise ex
        return {}

    client = Client(create_app(users_of([lane], [lane])))
    for _ in range(2):
        assert client.ask("GET", "/health/ready").status_int == 503
    fail.clear()
    assert client.ask("GET", "/health/ready").status_int == 200
    assert len(asked) == 3
    fail.append(DOWN)
    for _ in range(5):
        assert client.ask("GET", "/health/ready").json == {"status": "ready"}
    assert len(asked) == 3
    assert client.ask("GET", "/health").status_int == 503


@pytest.mark.parametrize("found", [None, DOWN, SchemaOutdated("the schema lacks 0002")])
def test_a_ready_service_looks_now_and_then_whether_the_schema_is_current(
    monkeypatch: pytest.MonkeyPatch, found: Exception | None
) -> None:
    monkeypatch.setattr(health, "LOOK_INTERVAL", 0.0)
    asked: list[float] = []

    def lane(batch: object, deadline: float) -> dict:
        asked.append(deadline)
        if found and len(asked) > 1:
            raise found
        return {}

    client = Client(create_app(users_of([lane], [lane])))
    assert client.ask("GET", "/health/ready").status_int == 200
    # This probe does not wait for what it begins.
    assert client.ask("GET", "/health/ready").status_int == 200
    assert len(asked) == 1
    gevent.sleep(0.01)
    assert len(asked) == 2
    response = client.ask("GET", "/health/ready")
    if isinstance(found, SchemaOutdated):
        assert (response.status_int, response.json["reason"]) == (503, str(found))
    else:
        assert response.status_int == 200


def test_requests_for_the_summary_share_the_checks(users: Users) -> None:
    running: list[None] = []
    peaks: list[int] = []

    def check(timeout: float) -> dict[str, int]:
        running.append(None)
        peaks.append(len(running))
        sleep(0.2)  # the time in which the others come
        running.pop()
        return {"check": len(peaks)}

    client = Client(create_app(users, checks={"primary": check}))
    everybody_is_there = Barrier(5)

    def ask(_: int) -> int:
        everybody_is_there.wait(10)
        found: int = client.ask("GET", "/health").json["dependencies"]["primary"]["check"]
        return found

    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(ask, range(5)))
    assert max(peaks) == 1, "one at a time"
    assert len(peaks) == len(set(found)) < 5


def test_a_probe_does_not_wait_as_long_as_a_request() -> None:
    deadlines = []

    def lane(batch: object, deadline: float) -> dict:
        deadlines.append(deadline)
        return {}

    client = Client(create_app(users_of([lane], [lane], timeout=600)))
    client.get_user("alice")
    client.ask("GET", "/health/ready")
    request, probe = deadlines
    assert probe < request - 500


def test_a_service_on_an_old_schema_says_so_until_it_was_migrated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hello")
    path = tmp_path / "users.db"
    connections: list[SQLiteConnection] = []

    class Route(SQLiteFile):
        def connect(self, deadline: float) -> SQLiteConnection:
            connections.append(super().connect(deadline))
            return connections[-1]

    route = CurrentSchema(Route(str(path)))
    client = Client(create_app(users_of([Session(route).find], [Session(route).save])))
    reason = f"the schema lacks {', '.join(schema.NAMES)}: run python -m hello migrate"
    response = client.ask("GET", "/health/ready")
    assert (response.status_int, response.json["reason"]) == (503, reason)
    assert_problem(client.put_user("alice", "1990-05-17"), 503, "try-later")
    assert_problem(client.get_user("alice"), 503, "try-later")
    assert client.ask("GET", "/health/live").status_int == 200
    assert f"the database does not answer: {SchemaOutdated(reason)}" in caplog.messages

    database = schema.connect(DatabaseURI(f"sqlite:///{path}"), timeout=5)
    schema.upgrade(database)
    database.close()
    assert client.ask("GET", "/health/ready").status_int == 200
    assert client.put_user("alice", "1990-05-17").status_int == 204
    assert client.get_user("alice").status_int == 200
    for connection in connections:
        connection.close()
