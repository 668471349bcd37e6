"""`python -m hello check` on real databases, healthy and not."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import Cluster
from tests.support.service import NO_SECRETS, Service, migrate
from tests.support.stack import DATABASE, Stack, blackholed

#: In every URI here: whatever is printed must not hold it.
SECRET = "s3cr%65t"

#: More than a process takes to start and to end, on a slow machine.
BOUND = 30.0


def run(*options: str, **settings: str) -> subprocess.CompletedProcess:
    """Run it, and see that it keeps its secrets and has no stack trace."""
    done = subprocess.run(
        [sys.executable, "-m", "hello", "check", *options],
        env={"PATH": os.environ["PATH"], "SECRETS_DIR": NO_SECRETS} | settings,
        capture_output=True,
        text=True,
        timeout=120,
    )
    printed = done.stdout + done.stderr
    for secret in (SECRET, "s3cret", "://", "Traceback"):
        assert secret not in printed
    return done


def check(code: int, **settings: str) -> dict[str, str]:
    """Each line by its name: `ok` or `FAILED`, and what else it says."""
    done = run(**settings)
    assert (done.returncode, done.stderr) == (code, ""), done.stdout
    lines = {}
    for line in done.stdout.splitlines():
        text = line[27:].strip()
        lines[line[:10].rstrip()] = line[11:17].rstrip() + (f": {text}" if text else "")
    return lines


def document(code: int, *options: str, **settings: str) -> dict:
    done = run("--json", *options, **settings)
    assert (done.returncode, done.stderr) == (code, ""), done.stdout
    said: dict = json.loads(done.stdout)
    return said


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack(replicas=2, cache=True) as stack:
        yield stack


@pytest.fixture(autouse=True)
def _healed(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "stack" in request.fixturenames:
        request.getfixturevalue("stack").heal()


def test_a_database_in_memory() -> None:
    assert check(0) == {
        "settings": "ok: SQLite in memory",
        "primary": "ok",
        "schema": "ok",
        "GET": "ok",
        "PUT": "ok",
    }


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "users.db"
    uri = f"sqlite:///{path}"
    lines = check(1, DB_URI=uri)
    assert lines["schema"] == "FAILED: the file is not there yet: run python -m hello migrate"
    # To look changes nothing.
    assert not path.exists()
    assert migrate(uri).returncode == 0
    assert set(check(0, DB_URI=uri).values()) == {"ok: a SQLite file", "ok"}
    path.write_bytes(b"no database" * 100)
    assert check(1, DB_URI=uri)["primary"] == "FAILED: file is not a database"


def test_everything(stack: Stack) -> None:
    before = stack.stored()
    lines = check(0, **stack.settings)
    for name in ("replica 1", "replica 2"):
        assert re.fullmatch(r"ok: follows the primary, \d+ bytes behind", lines.pop(name))
    assert lines == {
        "settings": "ok: PostgreSQL, 2 replicas, a cache",
        "primary": "ok",
        "schema": "ok",
        "cache": "ok",
        "GET": "ok",
        "PUT": "ok",
    }
    found = document(0, **stack.settings)
    assert (found["status"], found["get"], found["put"]) == ("ok", "any", True)
    assert found["dependencies"].keys() == {"primary", "replica 1", "replica 2", "cache"}
    for dependency in found["dependencies"].values():
        assert dependency["state"] == "up"
        assert 0 < dependency["latency_ms"] <= found["seconds"] * 1000 + 1
    # The primary writes to its log now and then, though nobody writes to it.
    assert 0 <= found["dependencies"]["replica 1"]["lag_bytes"] < 10_000
    assert stack.stored() == before
    with stack.cache.client as client:
        assert client.dbsize() == 0


def test_a_wrong_setting() -> None:
    settings = {"DB_URI": f"postgresql://hello:{SECRET}@localhost/hello", "READ_LANES": "many"}
    reason = "READ_LANES: must be a whole number from 1 to 16"
    assert check(2, **settings) == {"settings": f"FAILED: {reason}"}
    assert document(2, **settings) == {
        "status": "misconfigured",
        "settings": {"state": "wrong", "reason": reason},
    }


@pytest.mark.parametrize("options", [("--timeout", "0"), ("--timeout", "soon"), ("--verbose",)])
def test_a_wrong_option(options: tuple[str, ...]) -> None:
    done = run(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert options[0] in done.stderr


def test_the_primary_is_away(stack: Stack) -> None:
    stack.primary.kill()
    lines = check(1, **stack.settings)
    assert lines["primary"].startswith("FAILED: ")
    assert lines["schema"] == "FAILED: unknown: the primary does not answer"
    assert lines["replica 1"] == lines["replica 2"] == lines["cache"] == "ok"
    assert lines["GET"] == "FAILED: answered by a replica, perhaps with an old date"
    assert lines["PUT"] == "FAILED: 503"
    found = document(1, **stack.settings)
    assert (found["status"], found["get"], found["put"]) == ("degraded", "stale", False)


def test_everything_but_the_cache_is_away(stack: Stack) -> None:
    for cluster in (stack.primary, *stack.replicas):
        cluster.kill()
    found = document(1, **stack.settings)
    assert (found["status"], found["get"], found["put"]) == ("unavailable", "cached", False)
    states = {name: found["dependencies"][name]["state"] for name in found["dependencies"]}
    assert states == {"primary": "down", "replica 1": "down", "replica 2": "down", "cache": "up"}


def test_nothing_answers_and_it_ends_all_the_same(stack: Stack) -> None:
    start = time.monotonic()
    with (
        blackholed(stack.primary_path),
        blackholed(stack.replica_paths[0]),
        blackholed(stack.replica_paths[1]),
        blackholed(stack.cache_path),
    ):
        found = document(1, "--timeout", "1", **stack.settings)
    assert time.monotonic() - start < BOUND
    assert found["seconds"] < 10
    assert (found["status"], found["get"], found["put"]) == ("unavailable", "none", False)
    assert {found["dependencies"][name]["state"] for name in found["dependencies"]} == {"down"}


def test_the_cache_is_away(stack: Stack) -> None:
    stack.cache.kill()
    lines = check(1, **stack.settings)
    assert lines["cache"].startswith("FAILED: the cache does not answer: ")
    assert lines["GET"] == lines["PUT"] == "ok"
    assert document(1, **stack.settings)["status"] == "degraded"


def test_a_wrong_password(stack: Stack) -> None:
    role = stack.primary.create_role("right", DATABASE)
    uri = stack.primary.uri(DATABASE, role=role, password="s3cret")
    lines = check(1, DB_URI=uri)
    assert "password authentication failed" in lines["primary"]
    assert lines["GET"] == lines["PUT"] == "FAILED: 503"


def test_a_role_that_may_only_read(stack: Stack) -> None:
    primary = stack.primary
    role = primary.create_role("right", DATABASE)
    primary.query(f"REVOKE INSERT ON users FROM {role}", DATABASE)
    lines = check(1, DB_URI=primary.uri(DATABASE, role=role, password="right"))
    assert lines["primary"] == "FAILED: permission denied for table users"
    assert (lines["GET"], lines["PUT"]) == ("ok", "FAILED: 503")


def test_a_role_that_may_not_suspend_the_cache(stack: Stack) -> None:
    primary = stack.primary
    role = primary.create_role("right", DATABASE)
    primary.query(f"REVOKE UPDATE ON cache_use FROM {role}", DATABASE)
    uri = primary.uri(DATABASE, role=role, password="right")
    lines = check(1, DB_URI=uri, CACHE_URI=stack.cache.uri)
    assert lines["cache"] == "FAILED: the role may not update the table cache_use"
    assert lines["GET"] == "ok"
    # It would have to, as soon as the cache is away or another one.
    assert lines["PUT"] == "FAILED: 503: the role may not update the table cache_use"
    stack.cache.kill()
    lines = check(1, DB_URI=uri, CACHE_URI=stack.cache.uri)
    assert (lines["primary"], lines["GET"]) == ("ok", "ok")
    assert lines["PUT"] == "FAILED: 503: the role may not update the table cache_use"
    with (
        Service(DB_URI=uri, CACHE_URI=stack.cache.uri).wait_until() as service,
        service.client() as client,
    ):
        assert client.get("alice").status in (200, 404)
        assert client.put("alice", "1990-05-17").status == 503


def test_a_role_that_may_not_ask_whether_the_cache_may_be_used(stack: Stack) -> None:
    primary = stack.primary
    role = primary.create_role("right", DATABASE)
    primary.query(f"REVOKE SELECT ON cache_use FROM {role}", DATABASE)
    uri = primary.uri(DATABASE, role=role, password="right")
    settings = {"DB_URI": uri, "CACHE_URI": stack.cache.uri}
    lines = check(1, **settings)
    assert lines["primary"] == "FAILED: permission denied for table cache_use"
    assert (lines["GET"], lines["PUT"]) == ("ok", "FAILED: 503")
    with Service(**settings).wait_until() as service, service.client() as client:
        assert client.get("alice").status in (200, 404)
        assert client.put("alice", "1990-05-17").status == 503
        health = client.request("GET", "/health").json
        assert (health["status"], health["dependencies"]["primary"]["state"]) == (
            "degraded",
            "down",
        )
    # Without a cache nobody needs it.
    assert check(0, DB_URI=uri)["PUT"] == "ok"


def test_a_standby_for_a_primary(stack: Stack) -> None:
    lines = check(1, DB_URI=stack.replica.uri(DATABASE))
    assert "read-only" in lines["primary"]
    # What it shows may be old.
    assert (lines["GET"], lines["PUT"]) == ("FAILED: 503", "FAILED: 503")


def test_the_primary_for_a_replica(stack: Stack) -> None:
    uri = stack.primary.uri(DATABASE)
    assert check(1, DB_URI=uri, DB_READ_URI=uri)["replica 1"] == (
        "FAILED: it is no replica, or not any more"
    )


def test_the_replica_of_another_primary(stack: Stack, shared_cluster: Cluster) -> None:
    assert migrate(shared_cluster.uri()).returncode == 0
    lines = check(1, DB_URI=shared_cluster.uri(), DB_READ_URI=stack.replica.uri(DATABASE))
    assert lines["primary"] == "ok"
    assert lines["replica 1"] == "FAILED: it does not follow this primary; it is not used"
    assert lines["GET"] == lines["PUT"] == "ok"


def test_a_replica_that_is_behind(stack: Stack) -> None:
    with stack.replica_paused():
        stack.primary.query("CREATE TABLE much AS SELECT generate_series(1, 1000)", DATABASE)
        found = document(0, **stack.settings)
        stack.primary.query("DROP TABLE much", DATABASE)
    assert found["dependencies"]["replica 1"]["lag_bytes"] > 10_000


def test_an_old_schema(shared_cluster: Cluster, empty_database: str) -> None:
    uri = shared_cluster.uri(empty_database)
    lines = check(1, DB_URI=uri)
    assert lines["primary"] == "ok"
    assert lines["schema"].startswith("FAILED: the schema lacks 0001_create_users")
    assert lines["schema"].endswith(": run python -m hello migrate")
    assert lines["GET"] == lines["PUT"] == "FAILED: 503"
    found = document(1, DB_URI=uri)
    assert found["schema"]["state"] == "outdated"
    assert "0001_create_users" in found["schema"]["reason"]
    assert migrate(uri).returncode == 0
    assert check(0, DB_URI=uri)["schema"] == "ok"
