"""What was acknowledged: it is there after a crash, and nobody sees an older date after it."""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import NamedTuple

import pytest

from hello.database.postgresql import PostgreSQL
from hello.errors import DatabaseUnavailable
from tests.support.postgres import Cluster
from tests.support.processes import eventually
from tests.support.service import LANES, PATIENT, Answer, Client, Service, day, load, migrate, put
from tests.support.writes import WRITERS, Writes, stored


@pytest.fixture
def migrated_cluster(cluster: Cluster) -> Cluster:
    done = migrate(cluster.uri())
    assert done.returncode == 0, done.stderr
    return cluster


def test_lost_writes_are_found() -> None:
    writes = Writes()
    for number in range(WRITERS):
        writes.sent[number] = 5
        writes.acknowledged[number] = 3
    stored = {f"user-{number}": day(4) for number in range(WRITERS)}
    assert writes.lost(stored) == []
    assert writes.lost(stored | {"user-1": day(3), "user-2": day(5)}) == []
    # Older than what was acknowledged; never sent; gone.
    stored |= {"user-1": day(2), "user-2": day(6)}
    del stored["user-3"]
    assert writes.lost(stored) == ["user-1", "user-2", "user-3"]


def killed(cluster: Cluster) -> None:
    cluster.kill()


def stopped_fast(cluster: Cluster) -> None:
    cluster.stop("fast")


def stopped_immediately(cluster: Cluster) -> None:
    cluster.stop("immediate")


@pytest.mark.parametrize(
    "stop", [killed, stopped_fast, stopped_immediately], ids=lambda stop: stop.__name__
)
def test_what_was_acknowledged_survives(
    migrated_cluster: Cluster, stop: Callable[[Cluster], None]
) -> None:
    writes = Writes()
    with Service(DB_URI=migrated_cluster.uri()).wait_until() as service:
        workers = service.workers
        with load(service, WRITERS, writes):
            writes.go_on()
            stop(migrated_cluster)
            eventually(lambda: 503 in writes.statuses)
        # What came back, before a later write could hide that one was lost.
        migrated_cluster.start()
        assert writes.lost(stored(migrated_cluster)) == []

        with load(service, WRITERS, writes):
            for _ in range(2):
                writes.go_on()
                stop(migrated_cluster)
                migrated_cluster.start()
            writes.go_on()
        assert service.workers == workers
    assert set(writes.statuses) == {204, 503}
    assert writes.lost(stored(migrated_cluster)) == []


def test_nobody_is_answered_before_the_commit(migrated_cluster: Cluster) -> None:
    # A commit that waits for a standby which does not exist never ends. Unless it were
    # asynchronous, as it is for this role, if the service did not insist.
    migrated_cluster.query("ALTER ROLE postgres SET synchronous_commit = off")
    with (
        Service(DB_URI=migrated_cluster.uri(), STATEMENT_TIMEOUT="0.5").wait_until() as service,
        service.client() as client,
    ):
        assert client.put("alice", "1990-05-17").status == 204
        migrated_cluster.query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        migrated_cluster.query("SELECT pg_reload_conf()")
        eventually(
            lambda: migrated_cluster.query("SHOW synchronous_standby_names") == [("nobody",)]
        )
        assert client.put("alice", "1990-05-18").status == 503
        assert client.put("bob", "1990-05-18").status == 503
        # A standby may lack the same date as well.
        assert client.put("alice", "1990-05-17").status == 503

        migrated_cluster.query("ALTER SYSTEM RESET synchronous_standby_names")
        migrated_cluster.query("SELECT pg_reload_conf()")
        eventually(lambda: client.put("bob", "1990-05-18").status == 204)
    assert stored(migrated_cluster)["bob"] == "1990-05-18"


@contextmanager
def configured(cluster: Cluster, **settings: str) -> Iterator[None]:
    """Change settings of the running server, until the block ends."""

    def shows(name: str, value: str) -> bool:
        return cluster.query(f"SHOW {name}") == [(value,)]

    for name, value in settings.items():
        cluster.query(f"ALTER SYSTEM SET {name} = '{value}'")
    cluster.query("SELECT pg_reload_conf()")
    for name, value in settings.items():
        eventually(partial(shows, name, value))
    yield
    for name in settings:
        cluster.query(f"ALTER SYSTEM RESET {name}")
    cluster.query("SELECT pg_reload_conf()")


@pytest.mark.parametrize("weaker", ["off", "local"])
def test_a_commit_does_not_become_asynchronous_under_an_open_session(
    migrated_cluster: Cluster, weaker: str
) -> None:
    settings = {"STATEMENT_TIMEOUT": "0.5", "REQUEST_TIMEOUT": "1"}
    with (
        Service(DB_URI=migrated_cluster.uri(), **settings).wait_until() as service,
        service.client() as client,
    ):
        assert client.put("alice", "1990-05-17").status == 204
        pids = set(migrated_cluster.lanes("postgres"))
        # With these nobody waits for a standby, which does not exist here.
        names = {"synchronous_standby_names": "nobody", "synchronous_commit": weaker}
        with configured(migrated_cluster, **names):
            assert set(migrated_cluster.lanes("postgres")) == pids
            assert client.put("alice", "1990-05-18").status == 503
        eventually(lambda: client.put("alice", "1990-05-19").status == 204)


@pytest.mark.parametrize(
    ("default", "used"),
    [("local", "on"), ("remote_write", "on"), ("on", "on"), ("remote_apply", "remote_apply")],
)
def test_a_role_may_ask_for_more_than_a_durable_commit_and_not_for_less(
    migrated_cluster: Cluster, default: str, used: str
) -> None:
    migrated_cluster.query(f"ALTER ROLE postgres SET synchronous_commit = {default}")
    route = PostgreSQL(migrated_cluster.uri, connect_timeout=5, statement_timeout=5)
    deadline = time.monotonic() + 10
    connection = route.connect(deadline)
    migrated_cluster.query("ALTER ROLE postgres RESET synchronous_commit")
    with configured(migrated_cluster, synchronous_commit="off", client_min_messages="error"):
        assert connection.execute("SHOW synchronous_commit", None, deadline) == [(used,)]
    connection.close()


def test_dates_are_read_right_whatever_style_the_server_changes_to(
    migrated_cluster: Cluster,
) -> None:
    with (
        Service(DB_URI=migrated_cluster.uri(), TIMEZONE="UTC").wait_until() as service,
        service.client() as client,
    ):
        assert client.put("alice", "1990-05-07").status == 204
        before = client.get("alice")
        migrated_cluster.query("ALTER SYSTEM SET datestyle = 'SQL, DMY'")
        migrated_cluster.query("SELECT pg_reload_conf()")
        eventually(lambda: migrated_cluster.query("SHOW datestyle") != [("ISO, MDY",)])
        assert client.get("alice").body == before.body


def waiting_for_a_standby(cluster: Cluster) -> int | None:
    rows = cluster.query("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    return rows[0][0] if rows else None


@pytest.mark.parametrize("messages", ["warning", "error"])
def test_a_commit_that_was_told_not_to_wait_for_a_standby_is_not_acknowledged(
    migrated_cluster: Cluster, messages: str
) -> None:
    with (
        Service(DB_URI=migrated_cluster.uri(), **PATIENT).wait_until() as service,
        service.client(timeout=60) as client,
    ):
        assert client.put("alice", "1990-05-17").status == 204
        names = {"synchronous_standby_names": "nobody", "client_min_messages": messages}
        with configured(migrated_cluster, **names):
            client.send(*put("alice", "1990-05-18"))
            pid = eventually(lambda: waiting_for_a_standby(migrated_cluster))
            migrated_cluster.query(f"SELECT pg_cancel_backend({pid})")
            assert client.receive().status == 503
        eventually(lambda: client.put("alice", "1990-05-19").status == 204)
        assert "a standby may lack it" in service.log


@pytest.fixture
def standby(migrated_cluster: Cluster) -> Iterator[Cluster]:
    """One that every commit waits for."""
    standby = Cluster().create_standby(migrated_cluster).start()
    try:
        with configured(migrated_cluster, synchronous_standby_names="*"):
            eventually(lambda: synchronous(migrated_cluster))
            yield standby
    finally:
        standby.destroy()


def synchronous(cluster: Cluster) -> bool:
    return cluster.query("SELECT sync_state FROM pg_stat_replication") == [("sync",)]


def test_a_date_that_is_stored_already_is_acknowledged_when_a_standby_has_it(
    migrated_cluster: Cluster, standby: Cluster
) -> None:
    with (
        Service(DB_URI=migrated_cluster.uri(), **PATIENT).wait_until() as service,
        service.client(timeout=60) as client,
    ):
        assert client.put("alice", "1990-05-17").status == 204
        standby.stop("immediate")
        client.send(*put("alice", "1990-05-18"))
        # Its session is ended while it waits, and the date is seen: the statement is repeated.
        first = eventually(lambda: waiting_for_a_standby(migrated_cluster))
        migrated_cluster.query(f"SELECT pg_terminate_backend({first})")
        eventually(lambda: stored(migrated_cluster) == {"alice": "1990-05-18"})
        eventually(lambda: waiting_for_a_standby(migrated_cluster) not in (None, first))
        assert not client.answered
        standby.start()
        assert client.receive().status == 204
        assert stored(standby) == {"alice": "1990-05-18"}
        # Nobody waits but for what was stored while the standby was away.
        assert client.put("alice", "1990-05-18").status == 204


def test_a_user_is_forgotten_when_a_standby_has_forgotten_him(
    migrated_cluster: Cluster, standby: Cluster
) -> None:
    deadline = time.monotonic() + 60
    route = PostgreSQL(migrated_cluster.uri, connect_timeout=5, statement_timeout=30)
    first, second = route.connect(deadline), route.connect(deadline)
    migrated_cluster.query("INSERT INTO users VALUES ('alice', '1990-05-17', 1, now(), now())")
    standby.stop("immediate")
    with ThreadPoolExecutor(1) as pool:
        erased = pool.submit(first.forget, ["alice"], deadline)
        pid = eventually(lambda: waiting_for_a_standby(migrated_cluster))
        migrated_cluster.query(f"SELECT pg_cancel_backend({pid})")
        with pytest.raises(DatabaseUnavailable, match="a standby may lack it"):
            erased.result()
        assert stored(migrated_cluster) == {}
        repeated = pool.submit(second.forget, ["alice"], deadline)
        eventually(lambda: repeated.done() or waiting_for_a_standby(migrated_cluster))
        assert not repeated.done()
        standby.start()
        assert repeated.result() == {}
    assert stored(standby) == {}
    first.close()
    second.close()


def test_a_suspension_that_was_told_not_to_wait_for_a_standby_is_none(
    migrated_cluster: Cluster,
) -> None:
    route = PostgreSQL(migrated_cluster.uri, connect_timeout=5, statement_timeout=20)
    deadline = time.monotonic() + 30
    connection = route.connect(deadline)
    names = {"synchronous_standby_names": "nobody"}
    with configured(migrated_cluster, **names), ThreadPoolExecutor(1) as pool:
        suspending = pool.submit(connection.suspend_cache, 5.0, None, deadline)
        pid = eventually(lambda: waiting_for_a_standby(migrated_cluster))
        migrated_cluster.query(f"SELECT pg_cancel_backend({pid})")
        with pytest.raises(DatabaseUnavailable):
            suspending.result()


@pytest.mark.parametrize(
    ("warning", "status"),
    [('database "hello" must be vacuumed within 39999999 transactions', 204), ("?", 503)],
)
def test_only_a_warning_that_comes_with_every_write_is_no_failure(
    migrated_cluster: Cluster, warning: str, status: int
) -> None:
    migrated_cluster.query(
        "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE WARNING '{warning}'; RETURN NULL; END $$;"
        "CREATE TRIGGER warn AFTER INSERT ON users EXECUTE FUNCTION warn()"
    )
    with (
        Service(DB_URI=migrated_cluster.uri()).wait_until() as service,
        service.client() as client,
    ):
        assert [client.put("alice", day(n)).status for n in (1, 2)] == [status] * 2


# One user, several workers.


class Operation(NamedTuple):
    """A write that was acknowledged, or a read, of a user's n-th date; 0 for none."""

    kind: str
    user: str
    number: int
    start: float
    end: float


def stale_reads(history: Iterable[Operation]) -> list[Operation]:
    """The reads of an older date than one that was acknowledged before they began."""
    writes: dict[str, list[Operation]] = defaultdict(list)
    reads = []
    for operation in history:
        if operation.kind == "write":
            writes[operation.user].append(operation)
        else:
            reads.append(operation)
    return [
        read
        for read in reads
        if any(write.end < read.start and write.number > read.number for write in writes[read.user])
    ]


def test_stale_reads_are_found() -> None:
    def write(user: str, number: int, start: float, end: float) -> Operation:
        return Operation("write", user, number, start, end)

    def read(user: str, number: int, start: float, end: float) -> Operation:
        return Operation("read", user, number, start, end)

    history = [
        read("alice", 0, 0, 1),
        write("alice", 1, 0, 2),
        read("alice", 0, 1, 3),  # began before the acknowledgement
        write("alice", 2, 3, 6),
        read("alice", 2, 4, 5),  # the write was under way
        read("alice", 1, 4, 5),  # beside the last one, and as good
        read("bob", 0, 7, 8),
    ]
    assert stale_reads(history) == []
    stale = [read("alice", 1, 6.5, 7), read("alice", 0, 6.5, 8)]
    assert stale_reads([*stale, *history]) == stale


def _noon(now: datetime) -> str:
    """The time zone in which it is about noon, so that no day ends during a test."""
    return f"Etc/GMT{now.hour - 12:+d}"


def _born(number: int, today: date) -> str:
    """A date of birth whose birthday is in `number` days."""
    return str((today + timedelta(number)).replace(year=1988))


def _days(answer: Answer) -> int:
    found = re.search(r"in (\d+) day", answer.body.decode())
    return int(found[1]) if found else 0


def test_two_workers_never_show_an_older_date(shared_cluster: Cluster, database: str) -> None:
    now = datetime.now(UTC)
    users, dates = 8, 100
    written = dict.fromkeys(range(users), 0)
    history: list[Operation] = []
    statuses: set[int] = set()
    settings = PATIENT | {"WEB_CONCURRENCY": "2", "TIMEZONE": _noon(now)}
    service = Service(DB_URI=shared_cluster.uri(database), **settings)

    def request(_: Client, number: int) -> None:
        user = f"user-{number % users}"
        start = time.monotonic()
        # On a connection of its own: either worker may accept it.
        with service.client() as client:
            if number < users and written[number] < dates:
                kind, date = "write", written[number] + 1
                answer = client.put(user, _born(date, now.date()))
                written[number] = date
            else:
                kind = "read"
                answer = client.get(user)
                date = _days(answer)
        history.append(Operation(kind, user, date, start, time.monotonic()))
        statuses.add(answer.status)

    with service.wait_until(), load(service, 4 * users, request):
        # Both workers take part: one makes no more connections than it has lanes.
        eventually(lambda: len(shared_cluster.sessions(database)) > LANES)
        eventually(lambda: set(written.values()) == {dates}, within=60)
    assert statuses - {404} == {200, 204}
    assert stale_reads(history) == []
    # The reads watched the dates come.
    assert len({op.number for op in history if op.kind == "read"}) > dates / 2
