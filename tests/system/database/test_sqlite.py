"""The service on a SQLite file: several workers, other processes, kill -9, migrations."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import date, timedelta
from itertools import permutations
from pathlib import Path

import pytest

from hello.database import schema
from tests.support.processes import eventually, stopped
from tests.support.service import NO_SECRETS, Crowd, Service, migrate, put

APPLIED = "".join(f"applied: {name}\n" for name in schema.NAMES)
REVERTED = "".join(f"reverted: {name}\n" for name in reversed(schema.NAMES))
PENDING = "".join(f"pending: {name}\n" for name in schema.NAMES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a database file may be."""
    return tmp_path / "users.db"


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "users.db"
    done = migrate(uri(path))
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def database(path: Path, migrated: Path) -> Path:
    """A database file with the current schema."""
    return Path(shutil.copy(migrated, path))


def uri(path: Path) -> str:
    return f"sqlite:///{path}"


def rows(path: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def tables(path: Path) -> set[str]:
    return {name for (name,) in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}


def outcome(db_uri: str, *options: str) -> tuple[int, str, str]:
    """The exit status and the output of a migration, but for its progress."""
    done = migrate(db_uri, *options)
    lines = done.stderr.splitlines(keepends=True)
    progress = ("hello: applying ", "hello: this loses ")
    errors = [line for line in lines if not line.startswith(progress)]
    return done.returncode, done.stdout, "".join(errors)


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Hold the lock that SQLite gives to one writer at a time."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_every_worker_reads_what_another_has_written(database: Path) -> None:
    born = date(1990, 5, 17)
    with Service(DB_URI=uri(database), WEB_CONCURRENCY="2").wait_until() as service:
        messages = []
        for writer, reader in [*permutations(service.workers)] * 3:
            born += timedelta(days=1)
            with stopped(reader), service.client() as client:
                assert client.put("alice", born.isoformat()).status == 204
                written = client.get("alice").json
            with stopped(writer), service.client() as client:
                assert client.get("alice").json == written
            messages.append(written["message"])
        assert len(set(messages)) == len(messages)


def test_acknowledged_dates_survive_kill_9(database: Path) -> None:
    settings = {"DB_URI": uri(database), "WEB_CONCURRENCY": "2"}
    acknowledged: dict[str, date] = {}

    def write(service: Service, name: str) -> None:
        """Store one date after the other until the service dies."""
        born = date(1900, 1, 1)
        try:
            with service.client() as client:
                while client.put(name, born.isoformat()).status == 204:
                    acknowledged[name] = born
                    born += timedelta(days=1)
        except ConnectionError:
            pass

    service = Service(**settings).wait_until()
    with ThreadPoolExecutor(8) as pool:
        writers = [pool.submit(write, service, f"writer{number}") for number in range(8)]
        eventually(
            lambda: len(acknowledged) == 8 and min(acknowledged.values()) > date(1900, 1, 20),
            within=30,
        )
        for pid in (service.process.pid, *service.workers):
            os.kill(pid, signal.SIGKILL)
    for writer in writers:
        writer.result()
    service.stop()

    with Service(**settings).wait_until() as service, service.client() as client:
        for name in acknowledged:
            assert client.get(name).status == 200
        stored = dict(rows(database, "SELECT username, date_of_birth FROM users"))
    # The request that was cut may have been committed.
    lost = {
        name: (born, stored[name])
        for name, born in acknowledged.items()
        if not born <= date.fromisoformat(stored[name]) <= born + timedelta(days=1)
    }
    assert lost == {}


def test_writes_wait_for_another_process_and_reads_do_not(database: Path) -> None:
    with (
        Service(DB_URI=uri(database), REQUEST_TIMEOUT="1").wait_until() as service,
        service.client() as client,
        Crowd(service, 20) as crowd,
    ):
        assert client.put("alice", "1990-05-17").status == 204
        with write_lock(database):
            crowd.send([put(f"user{number}", "1990-05-17") for number in range(20)])
            crowd.settle()
            for _ in range(20):
                assert client.get("alice").status == 200
                assert client.get("nobody").status == 404
                assert client.request("GET", "/health/ready").status == 200
            for answer in crowd.receive():
                assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
                assert answer.headers["Content-Type"] == "application/problem+json"
        again = crowd.ask([put(f"user{number}", "1990-05-17") for number in range(20)])
        assert [answer.status for answer in again] == [204] * 20
        assert service.log.count("does not answer") == 1
        assert service.log.count("answers again") == 1


def test_write_goes_on_when_the_lock_is_released_in_time(database: Path) -> None:
    with (
        Service(DB_URI=uri(database), REQUEST_TIMEOUT="30").wait_until() as service,
        service.client() as client,
        service.client(timeout=40) as writer,
    ):
        with write_lock(database):
            writer.send(*put("alice", "1990-05-17"))
            assert client.get("alice").status == 404
        assert writer.receive().status == 204


def test_service_becomes_ready_when_the_schema_is_there(path: Path) -> None:
    with (
        Service(DB_URI=uri(path), WEB_CONCURRENCY="2").wait_until(status=503) as service,
        service.client() as client,
    ):
        workers = service.workers
        ready = client.request("GET", "/health/ready")
        assert ready.json["status"] == "unavailable"
        assert schema.NAMES[0] in ready.json["reason"]
        assert "python -m hello migrate" in ready.json["reason"]
        for answer in (client.get("alice"), client.put("alice", "1990-05-17")):
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert client.request("GET", "/health/live").status == 200
        assert client.request("GET", "/health/startup").status == 200
        assert client.request("GET", "/health").json["status"] == "unavailable"
        assert "python -m hello migrate" in service.log

        assert outcome(uri(path)) == (0, APPLIED, "")
        service.wait_until()
        for born in ("1990-05-17", "1990-05-18", "1990-05-18"):
            assert client.put("Zoë", born).status == 204
        assert client.get("Zoë").status == 200
        assert service.workers == workers
        found = rows(path, "SELECT username, date_of_birth, version FROM users")
        assert found == [("Zoë", "1990-05-18", 2)]


def test_schema_that_is_reverted_and_applied_under_the_service(database: Path) -> None:
    with Service(DB_URI=uri(database)).wait_until() as service, service.client() as client:
        assert client.put("alice", "1990-05-17").status == 204
        assert outcome(uri(database), "--down", schema.NAMES[0], "--yes")[0] == 0
        assert client.get("alice").status == 503
        assert client.put("alice", "1990-05-17").status == 503
        assert client.request("GET", "/health/ready").status == 503
        assert outcome(uri(database))[0] == 0
        assert client.get("alice").status == 404
        assert client.put("alice", "1990-05-17").status == 204


def test_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"this is no database " * 100)
    with Service(DB_URI=uri(path)).wait_until(status=503) as service, service.client() as client:
        assert client.put("alice", "1990-05-17").status == 503
        assert client.get("alice").status == 503
        assert client.request("GET", "/health/live").status == 200
        assert "Traceback" not in service.log
    assert outcome(uri(path)) == (1, "", "hello: file is not a database\n")


def test_file_that_cannot_be_opened(tmp_path: Path) -> None:
    expected = "hello: unable to open database file\n"
    assert outcome(uri(tmp_path)) == (1, "", expected)
    assert outcome(uri(tmp_path), "--check") == (3, "", expected)


def test_migrate(path: Path) -> None:
    assert outcome(uri(path), "--check") == (1, PENDING, "")
    assert outcome(uri(path)) == (0, APPLIED, "")
    assert "users" in tables(path)
    assert outcome(uri(path), "--check") == (0, "", "")
    assert outcome(uri(path)) == (0, "nothing to do\n", "")
    assert outcome(uri(path), "--down", schema.NAMES[0], "--yes") == (0, REVERTED, "")
    assert "users" not in tables(path)
    assert outcome(uri(path), "--check") == (1, PENDING, "")
    assert outcome(uri(path), "--down") == (0, "nothing to do\n", "")
    assert outcome(uri(path))[0] == 0
    assert outcome(uri(path), "--down", "--yes") == (0, f"reverted: {schema.NAMES[-1]}\n", "")


def test_check_changes_nothing(path: Path) -> None:
    path.touch()
    assert outcome(uri(path), "--check")[0] == 1
    assert tables(path) == set()


def test_database_of_a_newer_release(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO schema_migration (name, applied) VALUES ('9999_newer', CURRENT_TIMESTAMP)"
        )
    assert outcome(uri(database), "--check") == (0, "", "")
    assert outcome(uri(database)) == (0, "nothing to do\n", "")
    with Service(DB_URI=uri(database)).wait_until() as service, service.client() as client:
        assert client.put("alice", "1990-05-17").status == 204


@pytest.mark.parametrize(
    "options", [["--down", "0000_nothing"], ["--wait", "soon"], ["--check", "--down"], ["--bogus"]]
)
def test_migrate_refuses_what_it_does_not_understand(database: Path, options: list[str]) -> None:
    status, output, error = outcome(uri(database), *options)
    assert status != 0
    assert output == ""
    assert "Traceback" not in error
    assert "users" in tables(database)


def test_database_in_memory_needs_no_migration() -> None:
    status, output, _ = outcome("sqlite://")
    assert status == 0
    assert "nothing to do" in output


def test_migration_gives_up_on_a_locked_file(path: Path) -> None:
    with write_lock(path):
        status, _, error = outcome(uri(path), "--wait", "0.5")
        assert status == 1
        assert error.startswith("hello: ")
        assert error.count("\n") == 1
    assert outcome(uri(path), "--check")[0] == 1


def test_migration_waits_for_another_process(path: Path) -> None:
    with write_lock(path):
        migration = subprocess.Popen(
            [sys.executable, "-m", "hello", "migrate", "--wait", "30"],
            env={"DB_URI": uri(path), "CONNECT_TIMEOUT": "0.1", "SECRETS_DIR": NO_SECRETS},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            migration.wait(1.5)
    assert migration.wait(30) == 0
    assert "users" in tables(path)


def test_ten_migrations_at_once(path: Path) -> None:
    with ThreadPoolExecutor(10) as pool:
        done = [pool.submit(outcome, uri(path)) for _ in range(10)]
    outcomes = [future.result() for future in done]
    assert sorted(outcomes) == sorted([(0, APPLIED, "")] + [(0, "nothing to do\n", "")] * 9)
    assert rows(path, "SELECT name FROM schema_migration") == [(name,) for name in schema.NAMES]
    assert rows(path, "SELECT * FROM users") == []
