"""Behind PgBouncer: with session pooling all is as before it; with transaction pooling it is said
in one line why not."""

from collections.abc import Iterator

import pytest

from hello.database import schema
from tests.support.pgbouncer import PgBouncer, needs_pgbouncer
from tests.support.postgres import Cluster
from tests.support.processes import eventually
from tests.support.promise import violations
from tests.support.service import Service, check, migrate
from tests.support.workload import Today, Workload

pytestmark = needs_pgbouncer

REFUSED = (
    "the pooler at DB_URI gives a connection another session for each transaction:"
    " let it keep one (pool_mode = session)"
)


@pytest.fixture
def session_pooling(shared_cluster: Cluster) -> Iterator[PgBouncer]:
    with PgBouncer(shared_cluster, "session") as pooler:
        yield pooler


def test_session_pooling_keeps_the_promise(
    shared_cluster: Cluster, session_pooling: PgBouncer, empty_database: str
) -> None:
    uri = session_pooling.uri(empty_database)
    applied = "".join(f"applied: {name}\n" for name in schema.NAMES)
    assert (done := migrate(uri)).stdout == applied, done.stderr
    today = Today()
    with (
        Service(DB_URI=uri, TIMEZONE=today.zone).wait_until() as one,
        Service(DB_URI=uri, TIMEZONE=today.zone).wait_until() as other,
        Workload([one, other], today, forgetters=0) as workload,
    ):
        workload.proceed(300)
        # The pooler ends the connection of a client whose server's is gone.
        assert shared_cluster.terminate_sessions(empty_database) > 0
        workload.recover(200)
    rows = shared_cluster.query(
        "SELECT username, date_of_birth::text, version FROM users", empty_database
    )
    stored = {name: (born, version) for name, born, version in rows}
    assert violations(workload.history, today.rows(stored)) == []
    said = check(DB_URI=uri)
    assert (said["status"], said["exit"]) == ("ok", 0)


@pytest.mark.parametrize("round_robin", [False, True])
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_that_shares_sessions_is_refused_in_one_line(
    shared_cluster: Cluster, own_database: str, mode: str, round_robin: bool
) -> None:
    with PgBouncer(shared_cluster, mode, round_robin=round_robin) as pooler:
        uri = pooler.uri(own_database)
        done = migrate(uri)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"hello: {REFUSED}\n")
        said = check(DB_URI=uri)
        assert (said["get"], said["put"], said["exit"]) == ("none", False, 1)
        assert said["dependencies"]["primary"]["reason"] == REFUSED
        with Service(DB_URI=uri) as service:
            service.wait_until("/health/live").wait_until("/health/ready", 503)
            eventually(lambda: f"the primary does not answer: {REFUSED}" in service.log)
            with service.client() as client:
                assert client.put("alice", "1990-05-17").status == 503
                assert client.get("alice").status == 503
    assert shared_cluster.query("SELECT count(*) FROM users", own_database) == [(0,)]
