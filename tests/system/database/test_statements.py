"""What the service makes PostgreSQL do: how many statements, by which plan, at what cost."""

import json
import re
from collections.abc import Iterator

import psycopg2
import pytest

from hello.database import statements
from tests.support.postgres import Cluster
from tests.support.processes import eventually
from tests.support.service import PATIENT, Crowd, Service, get, migrate, put

#: As many connections as the project's figures are measured with.
CROWD = 32
NAMES = [f"user-{number:02}" for number in range(CROWD)]


def _puts(born: str) -> list[tuple]:
    return [put(name, born) for name in NAMES]


def _gets() -> list[tuple]:
    return [get(name) for name in NAMES]


@pytest.fixture
def service(shared_cluster: Cluster, database: str) -> Iterator[Service]:
    with Service(DB_URI=shared_cluster.uri(database), **PATIENT).wait_until() as service:
        yield service


# How many.


def test_a_request_alone_is_one_statement(
    shared_cluster: Cluster, database: str, service: Service
) -> None:
    with service.client() as client:
        # Each of the lanes connects first.
        for _ in range(3):
            client.put("alice", "1990-05-17")
            client.get("alice")
        before = shared_cluster.statements(database)
        for day in range(10, 20):
            assert client.put("alice", f"1990-05-{day}").status == 204
            assert client.get("alice").status == 200
        assert shared_cluster.statements(database) == before + 20


def test_requests_under_load_share_statements(
    shared_cluster: Cluster, database: str, service: Service
) -> None:
    days = [f"1990-06-{day:02}" for day in range(1, 21)]
    with Crowd(service, CROWD) as crowd:
        assert {answer.status for answer in crowd.ask(_puts("1990-05-17"))} == {204}
        assert {answer.status for answer in crowd.ask(_gets())} == {200}

        before = shared_cluster.statements(database)
        for day in days:
            assert {answer.status for answer in crowd.ask(_puts(day))} == {204}
        assert shared_cluster.statements(database) - before < len(days) * CROWD / 4

        before = shared_cluster.statements(database)
        for _ in days:
            assert {answer.status for answer in crowd.ask(_gets())} == {200}
        assert shared_cluster.statements(database) - before < len(days) * CROWD / 4


def test_whoever_waits_shares_the_next_statement(
    shared_cluster: Cluster, database: str, service: Service
) -> None:
    with Crowd(service, CROWD) as crowd:
        crowd.ask(_puts("1990-05-17"))
        with shared_cluster.locked(database):
            before = shared_cluster.statements(database)
            crowd.send(_puts("1990-05-18"))
            crowd.settle()
        assert {answer.status for answer in crowd.receive()} == {204}
        # One for the request that came first, perhaps, and one for all others.
        assert shared_cluster.statements(database) - before in (1, 2)


def test_of_several_puts_that_share_a_statement_the_last_wins(
    shared_cluster: Cluster, database: str, service: Service
) -> None:
    days = ["", *(f"1990-06-{day:02}" for day in range(1, 8))]
    with Crowd(service, len(days)) as crowd, service.client() as client:
        client.put("alice", "1990-05-17")
        with shared_cluster.locked(database):
            for sender, day in zip(crowd.clients, days, strict=True):
                sender.send(*(put("alice", day) if day else put("bob", "1990-01-01")))
                crowd.settle()
        assert {answer.status for answer in crowd.receive()} == {204}
    rows = "SELECT username, date_of_birth::text, version FROM users ORDER BY username"
    assert shared_cluster.query(rows, database) == [
        ("alice", days[-1], 2),
        ("bob", "1990-01-01", 1),
    ]


# At what cost.


@pytest.fixture(scope="module")
def quiet_cluster() -> Iterator[Cluster]:
    """A migrated server that writes no WAL of its own accord."""
    cluster = Cluster().create()
    cluster.configure(
        """
        autovacuum = off
        checkpoint_timeout = 1d
        wal_level = minimal
        max_wal_senders = 0
        """
    )
    cluster.start()
    assert migrate(cluster.uri()).returncode == 0
    yield cluster
    cluster.destroy()


def _written(cluster: Cluster) -> tuple[int, int]:
    """What grows with every write: the bytes of WAL so far, the next transaction id."""
    [(wal, transaction)] = cluster.query(
        "SELECT pg_current_wal_insert_lsn() - '0/0', pg_snapshot_xmax(pg_current_snapshot())::text"
    )
    return int(wal), int(transaction)


def test_a_put_of_the_same_date_writes_nothing(quiet_cluster: Cluster) -> None:
    with (
        Service(DB_URI=quiet_cluster.uri()).wait_until() as service,
        service.client() as client,
        Crowd(service, CROWD) as crowd,
    ):
        # The first statements after a change may tidy up behind it.
        for _ in range(3):
            crowd.ask(_puts("1990-05-17"))
        rows = quiet_cluster.query("SELECT * FROM users")
        before = _written(quiet_cluster)

        for _ in range(20):
            assert client.put(NAMES[0], "1990-05-17").status == 204
            assert {answer.status for answer in crowd.ask(_puts("1990-05-17"))} == {204}
        assert _written(quiet_cluster) == before
        assert quiet_cluster.query("SELECT * FROM users") == rows

        # The measure is good for something: one changed date among many moves both.
        requests = [*_puts("1990-05-17")[1:], put(NAMES[0], "1990-05-18")]
        assert {answer.status for answer in crowd.ask(requests)} == {204}
        wal, transaction = _written(quiet_cluster)
        assert wal > before[0]
        assert transaction == before[1] + 1


def test_saving_the_same_date_takes_no_transaction_id(quiet_cluster: Cluster) -> None:
    connection = psycopg2.connect(quiet_cluster.uri())
    with connection.cursor() as cursor:

        def save(names: list[str], born: str) -> tuple[list[tuple], bool]:
            """The rows that the statement returns, and if its transaction has an id."""
            cursor.execute("EXECUTE save(%s, %s::date[], 'infinity')", (names, [born] * len(names)))
            rows = cursor.fetchall()
            cursor.execute("SELECT pg_current_xact_id_if_assigned()")
            [(transaction,)] = cursor.fetchall()
            connection.commit()
            return rows, transaction is not None

        cursor.execute(f"PREPARE save AS {statements.POSTGRESQL.save}")
        assert save(["a", "b"], "1990-05-17") == ([("a", 1), ("b", 1)], True)
        assert save(["a", "b"], "1990-05-17") == ([], False)
        assert save(["a", "b", "c"], "1990-05-17") == ([("c", 1)], True)
        assert save(["a"], "1990-05-18") == ([("a", 2)], True)
        assert save(["a"], "1990-05-18") == ([], False)
    connection.close()


def test_what_comes_too_late_changes_nothing(quiet_cluster: Cluster) -> None:
    quiet_cluster.query("TRUNCATE users")
    connection = psycopg2.connect(quiet_cluster.uri())
    connection.autocommit = True

    def save(born: str, expires: str) -> None:
        cursor.execute("EXECUTE save('{a,b}', %s::date[], %s)", ([born] * 2, expires))

    def rows() -> list[tuple]:
        return quiet_cluster.query("SELECT * FROM users ORDER BY username")

    with connection.cursor() as cursor:
        cursor.execute(f"PREPARE save AS {statements.POSTGRESQL.save}")
        with pytest.raises(psycopg2.errors.DivisionByZero):
            save("1990-05-17", "-infinity")
        assert rows() == []
        save("1990-05-17", "infinity")
        before = rows()
        with pytest.raises(psycopg2.errors.DivisionByZero):
            save("1990-05-18", "-infinity")
        assert rows() == before
        # Nothing is to be done for it.
        save("1990-05-17", "-infinity")
        assert rows() == before
    connection.close()


def test_version_and_times_change_with_the_date(
    shared_cluster: Cluster, database: str, service: Service
) -> None:
    def row() -> tuple:
        rows = shared_cluster.query(
            "SELECT version, created_at, updated_at, updated_at <= now() FROM users", database
        )
        return rows[0]

    with service.client() as client:
        client.put("alice", "1990-05-17")
        version, created, updated, past = row()
        assert (version, updated, past) == (1, created, True)

        client.put("alice", "1990-05-17")
        assert row() == (1, created, created, True)

        for expected in range(2, 5):
            # There and back again: it is the change that counts.
            client.put("alice", f"1990-05-{18 + expected % 2}")
            version, first, latest, past = row()
            assert (version, first, past) == (expected, created, True)
            assert latest > updated
            updated = latest


# By which plan.


@pytest.fixture
def explained_database(shared_cluster: Cluster, own_database: str) -> str:
    """The name of a database with the current schema that logs the plan of each statement."""
    for setting in (
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_format = 'json'",
        "auto_explain.log_parameter_max_length = 64",
    ):
        shared_cluster.query(f"ALTER DATABASE {own_database} SET {setting}")
    return own_database


def _nodes(plan: dict) -> Iterator[dict]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _plans(log: str) -> list[dict]:
    """The plans in a server's log, of statements on the table of users."""
    logged = re.findall(r"  plan:\n((?:\t.*\n)+)", log)
    plans = [json.loads(text)["Plan"] for text in logged]
    return [plan for plan in plans if any("users" in node.values() for node in _nodes(plan))]


@pytest.mark.parametrize("table", ["new", "small", "grown"])
def test_plans_use_the_index_and_keep_the_order(
    shared_cluster: Cluster, explained_database: str, table: str
) -> None:
    fill = "INSERT INTO users SELECT 'u' || n, '1990-05-17', 1, now(), now() FROM generate_series"
    if table == "small":
        # For so few rows the planner would rather scan the table.
        shared_cluster.query(f"{fill}(1, 10) AS n; ANALYZE users", explained_database)
    elif table == "grown":
        # What the planner knows is out of date: it believes in ten rows.
        shared_cluster.query(f"{fill}(1, 10) AS n; ANALYZE users", explained_database)
        shared_cluster.query(f"{fill}(11, 20000) AS n", explained_database)
    start = len(shared_cluster.log)
    with (
        Service(DB_URI=shared_cluster.uri(explained_database)).wait_until() as service,
        Crowd(service, CROWD) as crowd,
    ):
        for _ in range(3):
            assert {answer.status for answer in crowd.ask(_puts("1990-05-17"))} == {204}
            assert {answer.status for answer in crowd.ask(_gets())} == {200}

    plans = _plans(shared_cluster.log[start:])
    kinds = [[node["Node Type"] for node in _nodes(plan)] for plan in plans]
    saves = [list(_nodes(p)) for p, k in zip(plans, kinds, strict=True) if "ModifyTable" in k]
    finds = [list(_nodes(p)) for p, k in zip(plans, kinds, strict=True) if "ModifyTable" not in k]
    assert saves
    for nodes in saves:
        # Names come from the array in its order, and each is looked up by the index.
        upsert = next(node for node in nodes if node["Node Type"] == "ModifyTable")
        assert upsert["Conflict Arbiter Indexes"] == ["users_pkey"]
        below = [node for node in _nodes(upsert) if node["Node Type"] != "Result"]
        assert [node["Node Type"] for node in below] == [
            "ModifyTable",
            "Function Scan",
            "Index Scan",
        ]
        assert below[2]["Index Name"] == "users_pkey"
    assert finds
    for nodes in finds:
        assert {node["Node Type"] for node in nodes} <= {
            "Index Scan",
            "Bitmap Heap Scan",
            "Bitmap Index Scan",
        }
        assert {node.get("Index Name", "users_pkey") for node in nodes} == {"users_pkey"}


# Side by side.


def _waiting_for_rows(cluster: Cluster, database: str) -> int:
    """How many of the service's connections wait for somebody else's change of a row."""
    return sum(wait in ("transactionid", "tuple") for _, wait in cluster.sessions(database))


def _deadlocks(cluster: Cluster, database: str) -> int:
    rows = cluster.query(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = %s", parameters=(database,)
    )
    deadlocks: int = rows[0][0]
    return deadlocks


def test_overlapping_batches_do_not_deadlock(shared_cluster: Cluster, database: str) -> None:
    size = 50
    names = [f"user-{number:02}" for number in range(size)]
    in_the_middle = f"SELECT FROM users WHERE username = '{names[size // 2]}' FOR UPDATE"
    before = _deadlocks(shared_cluster, database)
    uri = shared_cluster.uri(database)
    with (
        Service(DB_URI=uri, **PATIENT).wait_until() as one,
        Service(DB_URI=uri, **PATIENT).wait_until() as other,
        Crowd(one, size) as upwards,
        Crowd(other, size) as downwards,
    ):
        upwards.ask([put(name, "1990-05-17") for name in names])
        for day in range(1, 6):
            # Each collects a batch …
            with shared_cluster.holding(in_the_middle, database):
                with shared_cluster.holding("LOCK TABLE users IN SHARE MODE", database):
                    upwards.send([put(name, f"1990-06-{day:02}") for name in names])
                    downwards.send([put(name, f"1990-07-{day:02}") for name in reversed(names)])
                    upwards.settle()
                    downwards.settle()
                # … and would save half of it, in the order of arrival, if it were not sorted.
                # One waits for the row in the middle, the other for it or for the first.
                eventually(lambda: _waiting_for_rows(shared_cluster, database) == 2)
            for crowd in (upwards, downwards):
                assert {answer.status for answer in crowd.receive()} == {204}
    # A lane would try again after a deadlock, and nobody would notice the second lost.
    # A connection has added up what happened to it once it is gone.
    eventually(lambda: not shared_cluster.sessions(database))
    assert _deadlocks(shared_cluster, database) == before
    versions = "SELECT count(*), min(version), max(version) FROM users"
    assert shared_cluster.query(versions, database) == [(size, 11, 11)]
