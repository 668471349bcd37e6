"""The checker of the promise finds each mistake that is made on purpose, and no other."""

import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.support.processes import eventually
from tests.support.promise import Operation, Violation, violations
from tests.support.proxy import LATE, PASS
from tests.support.service import Client
from tests.support.stack import DATABASE, Combination, Fault, Stack
from tests.support.workload import Today, Workload, days_left

#: The service as it is.
SOUND = "hello.app:wsgi()"

#: How often something happens to it, and to one with a mistake until that is found.
TIMES, AT_MOST = 2, 16


def broken(name: str) -> str:
    """The service with a mistake."""
    return f"tests.support.broken:{name}()"


def reasons(
    stack: Stack,
    today: Today,
    combination: Combination,
    application: str,
    fault: Fault = nullcontext,
    crowd: Mapping[str, Any] | None = None,
    timeouts: Mapping[str, str] | None = None,
) -> set[str]:
    """Why an application breaks the promise while one thing happens, or nothing.

    `crowd` says who uses the application, if that is not the usual workload.
    """
    command = [sys.executable, "-m", "gunicorn", "-c", "python:hello.server", application]
    settings = {"TIMEZONE": today.zone, **(timeouts or {})}
    if fault is nullcontext:
        # Where the machine is slow, that is not to be taken for a cache that is away.
        settings["CACHE_TIMEOUT"] = "5"
    stack.empty()
    with stack.services(combination, command, **settings) as services:
        for time in range(1, AT_MOST + 1):
            with Workload(services, today, **(crowd or {})) as workload:
                workload.proceed(200)
                with fault():
                    workload.proceed(1_000)
            found = violations(workload.history, today.rows(stack.stored()))
            if found or (application == SOUND and time == TIMES):
                print(f"{application}: {time} times")
                break
    return {violation.reason for violation in found}


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
    use = partial(reasons, slow_replica, today, Combination(replica=True))
    assert use(SOUND) == set()
    assert "a date that was overtaken" in use(broken("late_fence"))


def test_a_cache_without_leases_is_found_out(stack: Stack, today: Today) -> None:
    use = partial(reasons, stack, today, Combination(cache=True))
    assert use(SOUND) == set()
    assert "a date that was overtaken" in use(broken("unguarded_cache"))


def test_a_writer_that_cannot_reach_the_cache_and_does_not_suspend_it_is_found_out(
    stack: Stack, today: Today
) -> None:
    use = partial(reasons, stack, today, Combination(cache=True), fault=stack.cache_half_blackholed)
    assert use(SOUND) == set()
    assert "a date that was overtaken" in use(broken("never_suspended_cache"))


def test_a_save_that_outlives_its_client_is_found_out(stack: Stack, today: Today) -> None:
    # Meanwhile there is time for a 503, another date, and its 204.
    timeouts = {"STATEMENT_TIMEOUT": "0.3", "REQUEST_TIMEOUT": "1"}
    fault = stack.primary_hears_late
    use = partial(reasons, stack, today, Combination(), fault=fault, timeouts=timeouts)
    assert use(SOUND) == set()
    assert "a date that was overtaken" in use(broken("outliving_saves"))


def test_an_erasure_that_does_not_tell_the_cache_is_found_out(stack: Stack, today: Today) -> None:
    def delete(username: str, **_: str) -> CompletedProcess[str]:
        sql = "DELETE FROM users WHERE username = %s"
        stack.primary.query(sql, DATABASE, (username,))
        return CompletedProcess([], 0)

    use = partial(reasons, stack, today, crowd={"forgetters": 8, "forget": delete})
    assert "a date that was forgotten" in use(Combination(cache=True), SOUND)
    # Without a cache there is nobody to tell.
    assert use(Combination(replica=True), SOUND) == set()


def test_a_cached_date_that_stays_for_its_higher_version_is_found_out(
    stack: Stack, today: Today
) -> None:
    crowd = {"restorers": 8, "backup": stack}
    use = partial(reasons, stack, today, Combination(cache=True), crowd=crowd)
    assert use(SOUND) == set()
    assert "a date that was overtaken" in use(broken("higher_versions"))


def test_a_save_that_is_repeated_while_the_first_is_under_way_is_found_out(
    stack: Stack, today: Today
) -> None:
    use = partial(reasons, stack, today, Combination(), fault=stack.primary_hears_again)
    assert "a date that was overtaken" in use(broken("repeated_saves"))
    assert use(SOUND) == set()


def test_a_claim_that_is_repeated_with_its_lease_is_found_out(stack: Stack, today: Today) -> None:
    claim_twice = partial(read_while_a_claim_is_late, stack, today)
    assert [v.reason for v in claim_twice(broken("repeated_claims"))] == [
        "a date that was overtaken"
    ]
    stack.empty()
    assert claim_twice(SOUND) == []


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
