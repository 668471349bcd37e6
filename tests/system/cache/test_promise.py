"""The promise, on real servers to which things happen."""

from collections import Counter
from collections.abc import Iterator

import pytest

from hello.cache.permission import TERM
from tests.support.promise import violations
from tests.support.stack import COMBINATIONS, Combination, Stack
from tests.support.usage import Usage
from tests.support.workload import Today, Workload

#: Shorter than usual, so that a fault shows all its stages in a few seconds.
TIMEOUTS = {"STATEMENT_TIMEOUT": "1", "CONNECT_TIMEOUT": "1", "REQUEST_TIMEOUT": "3"}


@pytest.fixture(scope="module")
def shared_stack() -> Iterator[Stack]:
    with Stack(replicas=1, cache=True, addresses=2) as stack:
        yield stack


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
                    workload.proceed(250, seconds=2 * TERM)
                workload.recover(300)
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
