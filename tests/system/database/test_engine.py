"""What the service needs of an engine, tried: on the one that ENGINE_URI names, or on PostgreSQL.

Tables of the service must not be in the database that ENGINE_URI names; they are dropped in the
end. On PostgreSQL, what other engines are sent is tried as well, as far as PostgreSQL can run it:
these engines are not here.
"""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPException
from typing import Any, NamedTuple

import pytest

from hello.database import schema
from hello.database.engine import CITUS, COCKROACHDB
from tests.support import engine
from tests.support.engine import query
from tests.support.postgres import Cluster
from tests.support.processes import eventually
from tests.support.promise import violations
from tests.support.service import (
    PATIENT,
    Client,
    Crowd,
    Service,
    check,
    forget,
    get,
    load,
    migrate,
    put,
)
from tests.support.workload import Today, Workload, says
from tests.support.writes import WRITERS, Writes

#: PUTs at once.
CROWD = 60
#: What clients do while the promise is checked.
OPERATIONS = 600

#: What Citus has, in a PostgreSQL that has it not: what is asked of it is written down.
STAND_INS = """
    CREATE SCHEMA stand_in;
    CREATE TABLE stand_in.asked (text text);
    CREATE FUNCTION create_distributed_table(relation regclass, by text) RETURNS void
        LANGUAGE sql AS $$ INSERT INTO stand_in.asked VALUES (relation || ' by ' || by) $$;
    CREATE FUNCTION create_reference_table(relation regclass) RETURNS void
        LANGUAGE sql AS $$ INSERT INTO stand_in.asked VALUES (relation::text) $$;
"""


class Place(NamedTuple):
    """A database of an engine, and settings with which it is used."""

    uri: str
    settings: dict[str, Any]
    cluster: Cluster | None

    def service(self, **settings: str) -> Service:
        return Service(DB_URI=self.uri, **self.settings, **settings)

    def stored(self) -> dict[str, tuple[str, int]]:
        rows = query(self.uri, "SELECT username, date_of_birth::text, version FROM users")
        return {name: (born, version) for name, born, version in rows}


#: On PostgreSQL, its own form and those that differ most from it.
FORMS = ["auto"] if engine.URI else ["auto", CITUS.name, COCKROACHDB.name]

#: Those whose statements differ.
each_form_of_the_statements = pytest.mark.parametrize("place", FORMS[:2], indirect=True)


@pytest.fixture(scope="module", params=FORMS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    settings: dict[str, Any] = {"DB_ENGINE": request.param}
    with ExitStack() as stack:
        cluster = None
        if engine.URI is None:
            cluster = Cluster().create().start()
            stack.callback(cluster.destroy)
            if request.param == CITUS.name:
                cluster.query(STAND_INS)
        uri = engine.URI or cluster.uri()  # type: ignore[union-attr]
        with ThreadPoolExecutor(3) as pool:
            started = [pool.submit(lambda: migrate(uri, **settings)) for _ in range(3)]
        said = [(done.returncode, done.stdout) for done in (each.result() for each in started)]
        # One works, and the others wait for it.
        applied = "".join(f"applied: {name}\n" for name in schema.NAMES)
        idle = (0, "nothing to do\n")
        assert sorted(said) == [(0, applied), idle, idle], [each.result() for each in started]
        yield Place(uri, settings, cluster)
        reverted = migrate(uri, "--down", schema.NAMES[0], "--yes", **settings)
        assert reverted.returncode == 0, reverted.stderr


@pytest.fixture
def empty(place: Place) -> Place:
    query(place.uri, "DELETE FROM users")
    return place


def test_the_schema_is_there_and_spread_where_it_is_to_be(place: Place) -> None:
    done = migrate(place.uri, "--check", **place.settings)
    assert (done.returncode, done.stdout) == (0, "")
    if place.cluster and place.settings["DB_ENGINE"] == CITUS.name:
        asked = place.cluster.query("SELECT text FROM stand_in.asked ORDER BY text")
        assert asked == [("cache_use",), ("users by username",)]


def test_the_contract(empty: Place) -> None:
    place = empty
    names = [f"user-{number}" for number in range(CROWD)]
    with place.service(**PATIENT).wait_until() as service:
        with service.client() as client:
            assert client.get("alice").status == 404
            for born in ("1990-05-17", "1990-05-17", "1990-05-18", "1990-05-18"):
                assert client.put("alice", born).status == 204
                assert says(client.get("alice"), born)
            assert place.stored() == {"alice": ("1990-05-18", 2)}
            # Names are told apart byte by byte.
            for name, born in (
                ("Alice", "1991-01-01"),
                ("álice", "1992-01-01"),
                ("٣", "1993-01-01"),
            ):
                assert client.put(name, born).status == 204
                assert says(client.get(name), born)
            assert says(client.get("alice"), "1990-05-18")
        with Crowd(service, CROWD) as crowd:
            for version, born in enumerate(("1980-01-01", "1980-01-02", "1980-01-02"), start=1):
                answers = crowd.ask([put(name, born) for name in names])
                assert {answer.status for answer in answers} == {204}
                assert all(says(answer, born) for answer in crowd.ask([get(n) for n in names]))
                assert {place.stored()[name] for name in names} == {(born, min(version, 2))}
            # Some are stored, and one of them has another date; others are new.
            asked = [put(name, "1980-01-02") for name in names[2:]]
            asked += [put("new-1", "1980-01-02"), put(names[0], "1980-01-03")]
            assert {answer.status for answer in crowd.ask(asked)} == {204}
        stored = place.stored()
        assert (stored[names[0]], stored[names[1]]) == (("1980-01-03", 3), ("1980-01-02", 2))
        assert stored["new-1"] == ("1980-01-02", 1)

        settings = {"DB_URI": place.uri} | place.settings
        assert forget("alice", **settings).returncode == 0
        assert forget("alice", **settings).returncode == 1
        with service.client() as client:
            assert client.get("alice").status == 404
        said = check(**settings)
        assert (said["status"], said["get"], said["put"], said["exit"]) == ("ok", "any", True, 0)


@each_form_of_the_statements
def test_the_promise(place: Place, empty: Place) -> None:
    today = Today()
    with (
        empty.service(TIMEZONE=today.zone).wait_until() as one,
        empty.service(TIMEZONE=today.zone).wait_until() as other,
        Workload([one, other], today, forgetters=0) as workload,
    ):
        workload.proceed(OPERATIONS)
    assert violations(workload.history, today.rows(empty.stored())) == []
    seen = Counter((operation.method, operation.status) for operation in workload.history)
    assert min(seen["GET", 200], seen["PUT", 204]) > OPERATIONS / 10


def _through_breaks(writes: Writes) -> Callable[[Client, int], None]:
    """The same load, for clients whose connection may break: they do not know what is stored."""

    def write(client: Client, number: int) -> None:
        try:
            writes(client, number)
        except (OSError, HTTPException):
            client.close()

    return write


@each_form_of_the_statements
def test_what_was_acknowledged_survives(place: Place, empty: Place) -> None:
    writes = Writes()
    with (
        empty.service(WEB_CONCURRENCY="2").wait_until() as service,
        load(service, WRITERS, _through_breaks(writes)),
    ):
        writes.go_on()
        # What is under way when its sender is gone is done as a whole, or not at all.
        for pid in service.workers:
            os.kill(pid, signal.SIGKILL)
        writes.go_on()
        if empty.cluster:
            empty.cluster.kill()
            eventually(lambda: 503 in writes.statuses)
            empty.cluster.start()
            writes.go_on()
    assert writes.lost({name: born for name, (born, _) in empty.stored().items()}) == []
