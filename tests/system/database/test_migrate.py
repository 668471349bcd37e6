"""`python -m hello migrate` on PostgreSQL, and what a running service makes of it."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import peewee
import pytest

from hello.database import schema
from tests.support.postgres import Cluster
from tests.support.processes import eventually, free_port
from tests.support.proxy import BLACKHOLE, PASS, REFUSE
from tests.support.service import Service
from tests.support.service import migrate as run_migrate
from tests.support.stack import DATABASE, Stack

APPLIED = "".join(f"applied: {name}\n" for name in schema.NAMES)
REVERTED = "".join(f"reverted: {name}\n" for name in reversed(schema.NAMES))
PENDING = "".join(f"pending: {name}\n" for name in schema.NAMES)

#: What keeps the script that made this table from being reverted.
SCRIPT = "0002_create_cache_use"
HOLD_TABLE = "LOCK TABLE cache_use IN ACCESS SHARE MODE"

ROOT = Path(__file__).parents[3]

INDEX = '''"""Find users by their birthday."""

atomic = False


def up(migrator, db):
    db.execute_sql("CREATE INDEX CONCURRENTLY dates ON users (date_of_birth)")


def down(migrator, db):
    db.execute_sql("DROP INDEX CONCURRENTLY dates")
'''

#: More than a process takes to start and to give up, on a slow machine.
BOUND = 30.0

#: Takes the lock of a migration. Its number stays the same from release to release, or
#: two releases would migrate at once.
TAKE_LOCK = f"SELECT pg_advisory_lock({int.from_bytes(b'hello', 'big')})"


class Done(NamedTuple):
    """How a migration has ended."""

    returncode: int
    stdout: str
    stderr: str
    progress: str


def migrate(db_uri: str, *options: str, directory: Path | None = None, **settings: str) -> Done:
    """Run it. Its progress, which is on standard error too, is in `progress`."""
    done = run_migrate(db_uri, *options, directory=directory, **settings)
    lines = done.stderr.splitlines(keepends=True)
    progress = re.compile("hello: (applying|waiting|this loses) ")
    said = "".join(line for line in lines if progress.match(line))
    error = "".join(line for line in lines if not progress.match(line))
    return Done(done.returncode, done.stdout, error, said)


def _tables(cluster: Cluster, database: str) -> list[str]:
    rows = cluster.query(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        " ORDER BY relname",
        database,
    )
    return [name for (name,) in rows]


def _all_tables() -> list[str]:
    """What all scripts make, and the history."""
    database = peewee.SqliteDatabase(":memory:")
    schema.upgrade(database)
    return sorted(database.get_tables())


def _applied(cluster: Cluster, database: str) -> list[str]:
    rows = cluster.query("SELECT name FROM schema_migration ORDER BY name", database)
    return [name for (name,) in rows]


@pytest.fixture
def next_release(tmp_path: Path) -> Path:
    """A directory with a release that makes and drops an index while it is used."""
    directory = tmp_path / "next"
    shutil.copytree(ROOT / "hello", directory / "hello")
    script = directory / "hello" / "migrations" / f"{len(schema.NAMES) + 1:04}_index_dates.py"
    script.write_text(INDEX)
    return directory


@pytest.fixture
def early_database(shared_cluster: Cluster, own_database: str) -> str:
    """The name of a database whose last script is SCRIPT, whatever came after it."""
    later = schema.NAMES[schema.NAMES.index(SCRIPT) + 1 :]
    if later:
        done = migrate(shared_cluster.uri(own_database), "--down", later[0], "--yes")
        assert done.returncode == 0, done.stderr
    return own_database


def _failed(done: Done) -> bool:
    """If it failed with one line that begins as it should, and no stack trace."""
    return (
        done.returncode == 1
        and done.stdout == ""
        and done.stderr.startswith("hello: ")
        and "Traceback" not in done.stderr
    )


def test_in_a_pod_every_line_is_one_of_the_log(
    shared_cluster: Cluster, empty_database: str
) -> None:
    uri = shared_cluster.uri(empty_database)

    def lines(text: str) -> list[tuple[str, str, str]]:
        each = [json.loads(line) for line in text.splitlines()]
        return [(line["level"], line["logger"], line["message"]) for line in each]

    done = run_migrate(uri, LOG_FORMAT="json")
    assert done.returncode == 0
    assert ("info", "hello.migrate", f"applied: {SCRIPT}") in lines(done.stdout)
    assert ("info", "hello.migrate", f"applying {SCRIPT}") in lines(done.stderr)
    done = run_migrate(uri, LOG_FORMAT="json", CONNECT_TIMEOUT="soon")
    assert done.returncode == 2
    [(level, _, said)] = lines(done.stderr)
    assert level == "error"
    assert said.startswith("CONNECT_TIMEOUT: ")
    away = f"postgresql://hello:s%65cret@127.0.0.1:{free_port()}/hello"
    done = run_migrate(away, LOG_FORMAT="json")
    assert done.returncode == 1
    [(level, _, said)] = lines(done.stderr)
    assert level == "error"
    assert "refused" in said
    assert "s%65cret" not in done.stderr


def test_up_and_down(shared_cluster: Cluster, empty_database: str) -> None:
    uri = shared_cluster.uri(empty_database)

    done = migrate(uri, "--check")
    assert (done.returncode, done.stdout, done.stderr) == (1, PENDING, "")
    # To look changes nothing.
    assert _tables(shared_cluster, empty_database) == []

    done = migrate(uri)
    assert (done.returncode, done.stdout, done.stderr) == (0, APPLIED, "")
    assert _tables(shared_cluster, empty_database) == _all_tables()
    done = migrate(uri, "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = migrate(uri)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing to do\n", "")

    done = migrate(uri, "--down", schema.NAMES[0], "--yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, REVERTED, "")
    assert _tables(shared_cluster, empty_database) == ["schema_migration"]
    done = migrate(uri, "--check")
    assert (done.returncode, done.stdout, done.stderr) == (1, PENDING, "")
    done = migrate(uri, "--down")
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing to do\n", "")
    assert _failed(migrate(uri, "--down", schema.NAMES[0]))


def test_the_schema(shared_cluster: Cluster, database: str) -> None:
    columns = shared_cluster.query(
        """
        SELECT attname, format_type(atttypid, atttypmod), attnotnull
        FROM pg_attribute WHERE attrelid = 'users'::regclass AND attnum > 0 ORDER BY attnum
        """,
        database,
    )
    assert columns == [
        ("username", "character varying(64)", True),
        ("date_of_birth", "date", True),
        ("version", "bigint", True),
        ("created_at", "timestamp with time zone", True),
        ("updated_at", "timestamp with time zone", True),
    ]
    indexes = shared_cluster.query(
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'users'", database
    )
    assert indexes == [("CREATE UNIQUE INDEX users_pkey ON public.users USING btree (username)",)]
    # The order of the operating system's C library changes from one release to the next.
    collation = """
        SELECT collname FROM pg_attribute JOIN pg_collation ON pg_collation.oid = attcollation
        WHERE attrelid = 'users'::regclass AND attname = 'username'
    """
    assert shared_cluster.query(collation, database) == [("C",)]


def test_ten_at_once(shared_cluster: Cluster, empty_database: str) -> None:
    uri = shared_cluster.uri(empty_database)
    with ThreadPoolExecutor(10) as pool:
        results = list(pool.map(lambda _: migrate(uri), range(10)))
    assert [(done.returncode, done.stderr) for done in results] == [(0, "")] * 10
    said = [done.stdout for done in results]
    assert sorted(said) == [APPLIED] + ["nothing to do\n"] * 9
    assert _tables(shared_cluster, empty_database) == _all_tables()
    assert _applied(shared_cluster, empty_database) == list(schema.NAMES)


def test_it_says_what_it_does_and_what_it_waits_for(
    shared_cluster: Cluster, empty_database: str
) -> None:
    uri = shared_cluster.uri(empty_database)
    with shared_cluster.holding(TAKE_LOCK, empty_database):
        progress = migrate(uri, "--wait", "0.5").progress
        assert progress == "hello: waiting for another migration to end, at most 0.5 s\n"
    applying = "".join(f"hello: applying {name}\n" for name in schema.NAMES)
    assert migrate(uri).progress == applying
    assert migrate(uri).progress == ""


def _running(cluster: Cluster, database: str, statement: str) -> list[tuple]:
    """The process of whoever runs a statement that begins so."""
    return cluster.query(
        "SELECT pid FROM pg_stat_activity WHERE datname = %s AND starts_with(query, %s)",
        parameters=(database, statement),
    )


def test_another_migration_keeps_the_lock(shared_cluster: Cluster, empty_database: str) -> None:
    uri = shared_cluster.uri(empty_database)
    with ThreadPoolExecutor(1) as pool:
        with shared_cluster.holding(TAKE_LOCK, empty_database):
            start = time.monotonic()
            done = migrate(uri, "--wait", "0.5")
            assert 0.5 < time.monotonic() - start < BOUND
            assert _failed(done)
            assert done.stderr == "hello: another migration holds the lock after 0.5 s\n"
            assert _tables(shared_cluster, empty_database) == []

            waiting = pool.submit(migrate, uri)
            asking = "SELECT pg_try_advisory_lock"
            eventually(lambda: _running(shared_cluster, empty_database, asking))
            assert not waiting.done()
        assert waiting.result().stdout == APPLIED


def test_a_lock_on_the_table_is_not_waited_for_long(
    shared_cluster: Cluster, early_database: str
) -> None:
    uri = shared_cluster.uri(early_database)
    tables = _tables(shared_cluster, early_database)
    # Whoever waits behind a long query keeps every later query waiting.
    with shared_cluster.holding(HOLD_TABLE, early_database):
        start = time.monotonic()
        done = migrate(uri, "--down", "--yes")
        assert time.monotonic() - start < BOUND
        assert _failed(done)
        assert "lock timeout" in done.stderr
    assert _tables(shared_cluster, early_database) == tables
    assert _applied(shared_cluster, early_database)[-1] == SCRIPT
    # Nor does it keep the lock that migrations take.
    assert migrate(uri, "--down", "--yes", "--wait", "0.5").stdout == f"reverted: {SCRIPT}\n"


def test_a_migration_whose_connection_ends(shared_cluster: Cluster, early_database: str) -> None:
    uri = shared_cluster.uri(early_database)
    with (
        ThreadPoolExecutor(1) as pool,
        shared_cluster.holding(HOLD_TABLE, early_database),
    ):
        waiting = pool.submit(migrate, uri, "--down", "--yes")
        [(pid,)] = eventually(lambda: _running(shared_cluster, early_database, "DROP TABLE"))
        shared_cluster.query("SELECT pg_terminate_backend(%s)", parameters=(pid,))
        done = waiting.result()
    assert _failed(done)
    assert "connection" in done.stderr
    assert _applied(shared_cluster, early_database)[-1] == SCRIPT


def _users(cluster: Cluster, database: str) -> int:
    count: int = cluster.query("SELECT count(*) FROM users", database)[0][0]
    return count


def _store(cluster: Cluster, database: str) -> None:
    cluster.query(
        "INSERT INTO users (username, date_of_birth, version, created_at, updated_at)"
        " SELECT n::text, '1990-05-17', 1, now(), now() FROM generate_series(1, 3) n",
        database,
    )


def test_no_row_is_lost_without_a_word(shared_cluster: Cluster, own_database: str) -> None:
    uri = shared_cluster.uri(own_database)
    _store(shared_cluster, own_database)
    done = migrate(uri, "--down", schema.NAMES[0])
    assert _failed(done)
    assert done.stderr == "hello: nothing was changed; --yes reverts all the same\n"
    assert "hello: this loses the table users with 3 rows\n" in done.progress
    assert _users(shared_cluster, own_database) == 3
    assert _applied(shared_cluster, own_database) == list(schema.NAMES)

    done = migrate(uri, "--down", schema.NAMES[0], "--yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, REVERTED, "")
    assert "hello: this loses the table users with 3 rows\n" in done.progress


@pytest.mark.parametrize(("answer", "reverted"), [("y", True), ("n", False), ("", False)])
def test_a_terminal_is_asked(
    shared_cluster: Cluster, own_database: str, answer: str, reverted: bool
) -> None:
    _store(shared_cluster, own_database)
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "wb", buffering=0) as terminal:
        terminal.write(f"{answer}\n".encode())
        done = subprocess.run(
            [sys.executable, "-m", "hello", "migrate", "--down", schema.NAMES[0]],
            env={"PATH": os.environ["PATH"], "DB_URI": shared_cluster.uri(own_database)},
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
        )
    os.close(theirs)
    assert "with 3 rows" in done.stderr.partition("Go on? ")[0]
    assert done.returncode == (0 if reverted else 1)
    assert done.stdout == (REVERTED if reverted else "")
    assert ("users" not in _tables(shared_cluster, own_database)) == reverted


def test_a_script_that_cannot_be_tried_may_lose_anything(
    shared_cluster: Cluster, own_database: str, next_release: Path
) -> None:
    uri = shared_cluster.uri(own_database)
    assert migrate(uri, directory=next_release).returncode == 0
    done = migrate(uri, "--down", directory=next_release)
    assert _failed(done)
    assert "this loses perhaps more than can be told" in done.progress
    assert migrate(uri, "--down", "--yes", directory=next_release).returncode == 0
    assert _applied(shared_cluster, own_database) == list(schema.NAMES)


def test_a_script_that_fails_changes_nothing(shared_cluster: Cluster, empty_database: str) -> None:
    uri = shared_cluster.uri(empty_database)
    # The script has created the table when it comes to altering it.
    shared_cluster.query(
        """
        CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql
            AS $$ BEGIN RAISE 'nobody alters tables today'; END $$;
        CREATE EVENT TRIGGER refuse ON ddl_command_start
            WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION refuse();
        """,
        empty_database,
    )
    done = migrate(uri)
    assert _failed(done)
    assert "nobody alters tables today" in done.stderr
    assert "users" not in _tables(shared_cluster, empty_database)
    assert migrate(uri, "--check").stdout == PENDING

    shared_cluster.query("DROP EVENT TRIGGER refuse", empty_database)
    assert migrate(uri, "--wait", "0.5").stdout == APPLIED


def test_no_server(shared_cluster: Cluster, database: str) -> None:
    role = shared_cluster.create_role("right", database)
    done = migrate(shared_cluster.uri(database, role=role, password="wr%ng"))
    assert _failed(done)
    assert "password authentication failed" in done.stderr
    assert "wr%" not in done.stderr

    done = migrate("postgresql://postgres:s%65cret@127.0.0.1:1/hello")
    assert _failed(done)
    assert "refused" in done.stderr
    assert "s%65cret" not in done.stderr
    assert "secret" not in done.stderr


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack(replicas=1) as stack:
        yield stack


@pytest.mark.parametrize("outage", [REFUSE, BLACKHOLE])
def test_a_replica_says_that_nothing_is_to_do_while_the_primary_is_away(
    stack: Stack, outage: str
) -> None:
    settings: dict[str, Any] = dict(stack.settings)
    uri = settings.pop("DB_URI")
    stack.primary_path.mode = outage
    start = time.monotonic()
    for options in ([], ["--check"]):
        done = migrate(uri, *options, **settings)
        assert (done.returncode, done.stderr) == (0, "")
        [line] = done.stdout.splitlines()
        assert line.startswith("nothing to do: a replica has the current schema; the primary is")
    assert time.monotonic() - start < BOUND
    # It cannot be reverted there; and without a replica nobody knows.
    assert _failed(migrate(uri, "--down", "--yes", **settings))
    assert _failed(migrate(uri))
    assert migrate(uri, "--check").returncode == 3
    stack.primary_path.mode = PASS


def test_a_replica_that_lacks_a_script_says_nothing(stack: Stack) -> None:
    nowhere = stack.primary.uri("empty", port=free_port())
    stack.primary.query("CREATE DATABASE empty")
    stack.catch_up(stack.replica)
    replica = stack.replica.uri("empty")
    assert _failed(migrate(nowhere, DB_READ_URI=replica))
    assert migrate(nowhere, "--check", DB_READ_URI=replica).returncode == 3


def test_a_primary_that_refuses_is_not_away(stack: Stack) -> None:
    # Or a rollout with a wrong password would go on.
    role = stack.primary.create_role("right", DATABASE)
    uri = stack.primary.uri(DATABASE, role=role, password="wrong")
    done = migrate(uri, DB_READ_URI=stack.replica.uri(DATABASE))
    assert _failed(done)
    assert "password authentication failed" in done.stderr


def test_the_schema_of_a_newer_release(shared_cluster: Cluster, own_database: str) -> None:
    uri = shared_cluster.uri(own_database)
    newer = "INSERT INTO schema_migration (name, applied) VALUES ('9999_newer', now())"
    shared_cluster.query(newer, own_database)
    assert migrate(uri, "--check").returncode == 0
    assert migrate(uri).stdout == "nothing to do\n"
    # Only the newer release knows how to revert it.
    assert _failed(migrate(uri, "--down", "--yes"))
    with Service(DB_URI=uri).wait_until() as service, service.client() as client:
        assert client.put("alice", "1990-05-17").status == 204


def _waits_for_a_migration(service: Service) -> None:
    with service.client() as client:
        ready = client.request("GET", "/health/ready")
        assert ready.status == 503
        assert schema.NAMES[0] in ready.json["reason"]
        assert "python -m hello migrate" in ready.json["reason"]
        assert client.put("alice", "1990-05-17").status == 503
        assert client.get("alice").status == 503
        assert client.request("GET", "/health/live").status == 200


def test_a_service_on_an_old_schema(shared_cluster: Cluster, empty_database: str) -> None:
    uri = shared_cluster.uri(empty_database)
    with Service(DB_URI=uri).wait_until(status=503) as service, service.client() as client:
        workers = service.workers
        _waits_for_a_migration(service)
        assert "python -m hello migrate" in service.log
        # It does not help itself: it may run with a role that cannot change the schema.
        assert _tables(shared_cluster, empty_database) == []

        assert migrate(uri).returncode == 0
        service.wait_until()
        assert client.put("alice", "1990-05-17").status == 204
        assert client.get("alice").status == 200

        # There and back again, while it runs.
        assert migrate(uri, "--down", schema.NAMES[0], "--yes").returncode == 0
        service.wait_until(status=503)
        _waits_for_a_migration(service)
        assert migrate(uri).returncode == 0
        service.wait_until()
        assert client.get("alice").status == 404
        assert client.put("alice", "1990-05-17").status == 204
        assert service.workers == workers
