"""What docs/runbook.md tells people to type: run here, where it says so."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from tests.support import monitoring
from tests.support.monitoring import ROOT, RUNBOOK
from tests.support.service import Service
from tests.support.stack import DATABASE, Stack
from tests.support.valkey import Valkey

TEXT = RUNBOOK.read_text()
HERE = Path(__file__).relative_to(ROOT).as_posix()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.M | re.S)


def test_every_block_of_commands_says_who_runs_it() -> None:
    said = {block.splitlines()[0] for block in _blocks("sh")}
    tests = {line: re.search(r"tests/[\w/]+\.py", line) for line in said}
    for line, named in tests.items():
        if named is None:
            assert line in ("# not run here", "# run by hand against moto"), line
        else:
            assert (ROOT / named[0]).is_file()


def _block(test: str, beginning: str) -> list[str]:
    """The commands of the block that this test runs and whose first command begins so."""
    for block in _blocks("sh"):
        first, *commands = block.splitlines()
        if test in first and commands[0].startswith(beginning):
            return commands
    raise AssertionError(f"no block begins with {beginning}")


def test_this_runs_every_block_that_names_it() -> None:
    beginnings = {
        block.splitlines()[1].split()[0] for block in _blocks("sh") if HERE in block.splitlines()[0]
    }
    assert beginnings == {"curl", "manifests/aws/valkey-cli"}


def test_the_first_of_all_is_what_the_script_does_that_is_run_on_a_stand_in() -> None:
    # test_e2e.py runs that script on tests/support/kubernetes.py.
    script = (ROOT / "scripts" / "e2e.sh").read_text()
    for command in _block("test_e2e.py", "kubectl"):
        words = command.split()
        # The script gives some of them to a function that runs kubectl.
        assert " ".join(words[1:4]) in script


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_shows_how_far_it_gets() -> None:
    [command] = _block(HERE, "curl")
    with Service().wait_until() as service:
        address = f"http://127.0.0.1:{service.port}"
        done = subprocess.run(
            ["sh", "-c", command],
            env={"PATH": os.environ["PATH"], "ADDRESS": address},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert "404" in done.stderr


def test_the_cache_is_asked_for_what_it_has() -> None:
    commands = _block(HERE, "manifests/aws/valkey-cli")
    valkey = Valkey().start()
    try:
        for command in commands:
            _, *arguments = command.split()
            assert valkey.client.execute_command(*arguments) is not None
    finally:
        valkey.destroy()


def _statements(text: str) -> Iterator[str]:
    """What people are told to run in psql: in blocks, and within sentences."""
    for block in re.findall(r"^```sql\n(.*?)^```", text, re.M | re.S):
        for statement in block.split(";"):
            if statement.strip():
                yield statement.strip()
    for quoted in re.findall(r"`((?:SELECT|ALTER ROLE|CHECKPOINT|UPDATE)\b[^`]*)`", text):
        yield quoted.replace("\n", " ")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack(replicas=1) as stack:
        yield stack


def test_the_sql_of_the_alerts_is_sql(stack: Stack) -> None:
    entries = monitoring.entries() | monitoring.entries("Alarms of the databases")
    ran = 0
    # What is called "name" there.
    stack.primary.query("CREATE ROLE name")
    stack.primary.query("SELECT pg_create_physical_replication_slot('name')")
    for name, text in entries.items():
        for statement in _statements(text):
            sql = statement.replace("pg_terminate_backend(pid)", "pg_terminate_backend(0)")
            servers = [stack.primary, stack.replicas[0]]
            errors = []
            for server in servers:
                try:
                    server.query(sql, DATABASE)
                except psycopg2.Error as ex:
                    errors.append(str(ex))
            # What is of the primary alone, or of a replica alone, runs there.
            assert len(errors) < len(servers), (name, sql, errors)
            ran += 1
    assert ran >= 12
