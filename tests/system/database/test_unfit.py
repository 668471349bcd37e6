"""An engine that has less than PostgreSQL: what is not needed is done without, and what is needed
is named in one line. PostgreSQL plays it, in a database whose functions were renamed."""

import pytest

from tests.support.postgres import Cluster
from tests.support.processes import eventually
from tests.support.service import Service, check
from tests.support.workload import says

BORN = "1990-05-17"


@pytest.fixture
def lacking(request: pytest.FixtureRequest, shared_cluster: Cluster, own_database: str) -> str:
    """The URI of a database without the function that the test names."""
    shared_cluster.query(f"ALTER FUNCTION pg_catalog.{request.param} RENAME TO gone", own_database)
    return shared_cluster.uri(own_database)


@pytest.mark.parametrize(
    "lacking",
    ["pg_control_system", "pg_control_recovery", "pg_postmaster_start_time", "pg_backend_pid"],
    indirect=True,
)
def test_what_says_which_server_it_is_is_done_without(lacking: str) -> None:
    with Service(DB_URI=lacking).wait_until() as service, service.client() as client:
        assert client.put("alice", BORN).status == 204
        assert says(client.get("alice"), BORN)
    assert check(DB_URI=lacking)["exit"] == 0


@pytest.mark.parametrize("lacking", ["unnest(anyarray)"], indirect=True)
def test_what_is_needed_is_named_in_one_line(lacking: str) -> None:
    reason = (
        "the engine at DB_URI has no support for what is sent to it:"
        " function pg_catalog.unnest(text[]) does not exist"
    )
    _is_refused(lacking, reason)


@pytest.mark.parametrize("engine", ["aurora", "citus"])
def test_replicas_need_an_engine_with_a_fence(
    shared_cluster: Cluster, own_database: str, engine: str
) -> None:
    uri = shared_cluster.uri(own_database)
    reason = (
        "the engine at DB_URI has no log that tells how far a replica is: leave DB_READ_URI out"
    )
    _is_refused(uri, reason, DB_READ_URI=uri, DB_ENGINE=engine)


def _is_refused(uri: str, reason: str, **settings: str) -> None:
    said = check(DB_URI=uri, **settings)
    assert (said["status"], said["get"], said["put"], said["exit"]) == (
        "unavailable",
        "none",
        False,
        1,
    )
    assert said["dependencies"]["primary"]["reason"] == reason
    with Service(DB_URI=uri, **settings) as service:
        service.wait_until("/health/live").wait_until("/health/ready", 503)
        eventually(lambda: f"the primary does not answer: {reason}" in service.log)
        with service.client() as client:
            assert client.put("alice", BORN).status == 503
            assert client.get("alice").status == 503
