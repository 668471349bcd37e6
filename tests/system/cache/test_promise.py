"""The promise, on real servers to which things happen."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from subprocess import CompletedProcess
from typing import Any

import pytest

from hello.cache.permission import TERM
from tests.support.processes import eventually
from tests.support.promise import Operation, Violation, violations
from tests.support.proxy import LATE, PASS
from tests.support.service import Client
from tests.support.stack import (
    COMBINATIONS,
    DATABASE,
    Combination,
    Fault,
    Stack,
    Usage,
)
from tests.support.workload import Today, Workload, days_left

#: Shorter than usual, so that a fault shows all its stages in a few seconds.
TIMEOUTS = {"STATEMENT_TIMEOUT": "1", "CONNECT_TIMEOUT": "1", "REQUEST_TIMEOUT": "3"}


@pytest.fixture(scope="module")
def shared_stack() -> Iterator[Stack]:
    with Stack(replicas=1, cache=True, addresses=2) as stack:
        yield stack


@pytest.fixture
def today() -> Today:
    return Today()


@pytest.mark.parametrize("combination", COMBINATIONS, ids=str)
def test_the_promise_is_kept_whatever_happens(
    stack: Stack, today: Today, combination: Combination
) -> None:
    settings = TIMEOUTS | {"TIMEZONE": today.zone}
    with stack.services(combination, **settings) as services:
        with Workload(services, today, backup=stack) as workload:
            workload.recover()
            before = Usage.of(stack)
            workload.proceed(1_000)
            usage = Usage.of(stack) - before
            for fault in stack.faults(combination).values():
                with fault():
                    # Permissions to use the cache end meanwhile, however fast the answers are.
                    workload.proceed(800, seconds=2 * TERM)
                workload.recover()
        found = violations(workload.history, today.rows(stack.stored()))
    assert found == []
    # It was worth checking: everything took part, and was missed.
    seen = Counter((o.method, "stale" if o.stale else o.status) for o in workload.history)
    assert min(seen["GET", 200], seen["PUT", 204]) > 200
    assert seen["PUT", 503] > 0
    assert min(seen["FORGET", 204], seen["RESTORE", 204]) > 0
    assert (seen["GET", "stale"] > 0) == (combination.replica or combination.cache)
    assert (usage.replica_batches > 0) == combination.replica
    assert (usage.cache_hits > 0) == combination.cache


def reasons(
    stack: Stack,
    today: Today,
    combination: Combination,
    application: str,
    fault: Fault = nullcontext,
    times: int = 1,
    crowd: Mapping[str, Any] | None = None,
    **timeouts: str,
) -> set[str]:
    """Why an application breaks the promise while one thing happens, or nothing.

    It happens `times` times. `crowd` says who uses the application, if that is not the usual
    workload.
    """
    command = [sys.executable, "-m", "gunicorn", "-c", "python:hello.server", application]
    settings = {"TIMEZONE": today.zone} | timeouts
    if fault is nullcontext:
        # Where the machine is slow, that is not to be taken for a cache that is away.
        settings["CACHE_TIMEOUT"] = "5"
    with stack.services(combination, command, **settings) as services:
        with Workload(services, today, **(crowd or {})) as workload:
            for _ in range(times):
                workload.proceed(1_000 // times)
                with fault():
                    workload.proceed(2_000)
        return {v.reason for v in violations(workload.history, today.rows(stack.stored()))}


@pytest.fixture
def slow_replica(stack: Stack) -> Iterator[Stack]:
    """A stack whose replica shows a commit some milliseconds after the primary."""
    stack.replica.query("ALTER SYSTEM SET recovery_min_apply_delay = '10ms'")
    stack.replica.query("SELECT pg_reload_conf()")
    yield stack
    stack.replica.query("ALTER SYSTEM RESET recovery_min_apply_delay")
    stack.replica.query("SELECT pg_reload_conf()")


def test_a_fence_that_comes_after_the_snapshot_is_found_out(
    slow_replica: Stack, today: Today
) -> None:
    combination = Combination(replica=True)
    assert reasons(slow_replica, today, combination, "hello.app:wsgi()") == set()
    broken = reasons(slow_replica, today, combination, "tests.support.broken:late_fence()")
    assert "a date that was overtaken" in broken


def test_a_cache_without_leases_is_found_out(stack: Stack, today: Today) -> None:
    combination = Combination(cache=True)
    assert reasons(stack, today, combination, "hello.app:wsgi()") == set()
    broken = reasons(stack, today, combination, "tests.support.broken:unguarded_cache()")
    assert "a date that was overtaken" in broken


def test_a_writer_that_cannot_reach_the_cache_and_does_not_suspend_it_is_found_out(
    stack: Stack, today: Today
) -> None:
    combination = Combination(cache=True)
    fault = stack.faults(combination)["cache blackholed for one service"]
    assert reasons(stack, today, combination, "hello.app:wsgi()", fault) == set()
    stack.empty()
    application = "tests.support.broken:never_suspended_cache()"
    broken = reasons(stack, today, combination, application, fault)
    assert "a date that was overtaken" in broken


def test_a_save_that_outlives_its_client_is_found_out(stack: Stack, today: Today) -> None:
    combination = Combination()
    fault = stack.faults(combination)["primary hears late"]
    # Meanwhile there is time for a 503, another date, and its 204.
    timeouts = {"STATEMENT_TIMEOUT": "0.3", "REQUEST_TIMEOUT": "1"}
    found = []
    for application in ("hello.app:wsgi()", "tests.support.broken:outliving_saves()"):
        stack.empty()
        found.append(reasons(stack, today, combination, application, fault, times=8, **timeouts))
    assert found[0] == set()
    assert "a date that was overtaken" in found[1]


def test_an_erasure_that_does_not_tell_the_cache_is_found_out(stack: Stack, today: Today) -> None:
    def delete(username: str, **_: str) -> CompletedProcess:
        sql = "DELETE FROM users WHERE username = %s"
        stack.primary.query(sql, DATABASE, (username,))
        return CompletedProcess([], 0)

    crowd = {"forgetters": 8, "forget": delete}
    broken = reasons(stack, today, Combination(cache=True), "hello.app:wsgi()", crowd=crowd)
    assert "a date that was forgotten" in broken
    # Without a cache there is nobody to tell.
    stack.empty()
    combination = Combination(replica=True)
    assert reasons(stack, today, combination, "hello.app:wsgi()", crowd=crowd) == set()


def test_a_cached_date_that_stays_for_its_higher_version_is_found_out(
    stack: Stack, today: Today
) -> None:
    combination = Combination(cache=True)
    crowd = {"restorers": 8, "backup": stack}
    assert reasons(stack, today, combination, "hello.app:wsgi()", crowd=crowd) == set()
    stack.empty()
    application = "tests.support.broken:higher_versions()"
    broken = reasons(stack, today, combination, application, crowd=crowd)
    assert "a date that was overtaken" in broken


def test_a_save_that_is_repeated_while_the_first_is_under_way_is_found_out(
    stack: Stack, today: Today
) -> None:
    combination = Combination()
    fault = stack.faults(combination)["primary hears again, late"]
    stack.empty()
    application = "tests.support.broken:repeated_saves()"
    assert "a date that was overtaken" in reasons(
        stack, today, combination, application, fault, times=8
    )
    stack.empty()
    assert reasons(stack, today, combination, "hello.app:wsgi()", fault, times=8) == set()


def test_a_claim_that_is_repeated_with_its_lease_is_found_out(stack: Stack, today: Today) -> None:
    claim_twice = partial(read_while_a_claim_is_late, stack, today)
    assert [v.reason for v in claim_twice("tests.support.broken:repeated_claims()")] == [
        "a date that was overtaken"
    ]
    stack.empty()
    assert claim_twice("hello.app:wsgi()") == []


def read_while_a_claim_is_late(stack: Stack, today: Today, application: str) -> list[Violation]:
    """What the checker says of a GET whose claim is cut, and arrives again after another PUT."""
    history = []

    def record(client: Client, method: str, days: int | None = None) -> None:
        start = time.monotonic()
        if days is None:
            answer = client.get("alice")
        else:
            answer = client.put("alice", today.born(days))
        value = days_left(answer) if days is None else days
        end = time.monotonic()
        history.append(Operation(start, end, "a client", method, "alice", value, answer.status))

    def reads() -> int:
        return stack.primary.statements(DATABASE, "PREPARE find%")

    command = [sys.executable, "-m", "gunicorn", "-c", "python:hello.server", application]
    settings = {"TIMEZONE": today.zone}
    with stack.services(Combination(cache=True), command, **settings) as services:
        reader, writer = (service.client() for service in services)
        with reader, writer, ThreadPoolExecutor(1) as pool:
            # Of another user: each has its connections.
            for client in (reader, writer):
                assert client.put("bob", today.born(1)).status == 204
                assert client.get("bob").status == 200
            record(writer, "PUT", 1)
            before = reads()
            path = stack.cache_paths[0]
            late = path.late
            path.mode = LATE
            reading = pool.submit(record, reader, "GET")
            eventually(lambda: reads() > before)
            path.mode = PASS
            assert path.late > late, "no claim was cut"
            record(writer, "PUT", 2)
            reading.result()
            # The late one has arrived by now, if its reader has waited for it.
            record(writer, "GET")
    return violations(history)
