"""The promise, while Sentinel makes another server the cache's primary.

The service knows nothing of Sentinel: HAProxy leads it to the server that says it is a primary.
`-rP` shows how long clients went without an answer, and how long nobody used the cache.
"""

import time
from collections import Counter
from collections.abc import Iterator

import pytest
import redis

from tests.support.gaps import Gaps
from tests.support.haproxy import HAPROXY
from tests.support.processes import eventually
from tests.support.promise import violations
from tests.support.sentinel import SentinelCache
from tests.support.service import Service
from tests.support.stack import Stack
from tests.support.valkey import Valkey
from tests.support.workload import Today, Workload

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="needs haproxy")


@pytest.fixture
def database() -> Iterator[Stack]:
    with Stack() as stack:
        yield stack


@pytest.fixture
def cache() -> Iterator[SentinelCache]:
    with SentinelCache() as cache:
        yield cache


def hits(server: Valkey) -> int:
    """How often something was found in it."""
    try:
        with server.client as client:
            return client.info("stats")["keyspace_hits"]
    except redis.RedisError:
        return 0


def test_the_promise_is_kept_whichever_server_is_the_cache(
    database: Stack, cache: SentinelCache
) -> None:
    today = Today()
    settings = database.settings | {"CACHE_URI": cache.uri, "TIMEZONE": today.zone}
    told = []
    with (
        Service(**settings).wait_until() as one,
        Service(**settings).wait_until() as other,
        Workload(
            [one, other], today, writers=3, sharing=2, readers=5, forgetters=0, backup=database
        ) as workload,
    ):
        workload.recover(100)
        eventually(lambda: hits(cache.primary) > 100, within=30)
        for fault in ("killed", "frozen"):
            primary = cache.primary
            begin = time.monotonic()
            with getattr(cache, fault)(primary):
                new = cache.another(primary)
                # It counts from its own start: what it has as a replica is not asked for.
                before = hits(new)
                eventually(lambda: hits(new) > before + 100, within=60)  # noqa: B023
                used = time.monotonic() - begin
                workload.recover(100)
            # The old one says that it is a primary, too, until it is told otherwise.
            cache.settle()
            workload.recover(100)
            gaps = Gaps.of(workload.history, begin, time.monotonic())
            told.append(f"{fault}: {gaps}, {used:.1f} s until the new server is used")
    assert violations(workload.history, today.rows(database.stored())) == []
    seen = Counter((o.method, "stale" if o.stale else o.status) for o in workload.history)
    print(*told, f"{len(workload.history)} requests: {dict(seen)}", sep="\n")
    assert min(seen["GET", 200], seen["PUT", 204]) > 200
    # A cache that fails costs time, and no request.
    assert seen["PUT", 503] + seen["GET", 503] == 0
