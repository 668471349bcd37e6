"""The promise, while Patroni makes another member the leader.

`-rP` shows how long clients went without an answer.
"""

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support import patroni as programs
from tests.support.gaps import Gaps
from tests.support.patroni import Patroni, version
from tests.support.processes import eventually
from tests.support.promise import violations
from tests.support.service import Service
from tests.support.valkey import Valkey
from tests.support.workload import Today, Workload

pytestmark = pytest.mark.skipif(
    bool(programs.MISSING), reason=f"needs {', '.join(programs.MISSING)}"
)

#: Shorter than usual, so that a fault shows all its stages in a few seconds.
TIMEOUTS = {"STATEMENT_TIMEOUT": "1", "CONNECT_TIMEOUT": "1", "REQUEST_TIMEOUT": "3"}

#: Members, whether services ask HAProxy which one leads, and what happens to the leader.
# Each is on a cluster of its own: after somebody stood still or was cut off, Patroni before 3.1 may
# go by a stale copy of what etcd holds, and never name a synchronous standby again
# (https://github.com/patroni/patroni/pull/2783). Commits may then wait for good.
CASES = [
    (3, False, ["killed"]),
    (3, False, ["frozen"]),
    (3, False, ["cut_off_from_etcd"]),
    (3, True, ["switched_over", "cut_off"]),
    (2, False, ["killed"]),
]


@pytest.fixture
def patroni(request: pytest.FixtureRequest) -> Iterator[Patroni]:
    if "frozen" in request.node.callspec.params["faults"] and version() < (3, 1):
        pytest.skip("needs Patroni 3.1 or newer")
    with Patroni(request.param) as patroni:
        yield patroni


@pytest.fixture
def valkey(patroni: Patroni) -> Iterator[Valkey]:
    valkey = Valkey().start()
    with valkey.client as client:
        history = client.info("replication")["master_replid"]
    # Services use it at once, as if they had always done.
    patroni.query(f"UPDATE cache_use SET history = '{history}', suspended_until = now()")
    yield valkey
    valkey.destroy()


@pytest.mark.parametrize(("patroni", "balanced", "faults"), CASES, indirect=["patroni"])
def test_the_promise_is_kept_whoever_leads(
    patroni: Patroni, valkey: Valkey, balanced: bool, faults: list[str]
) -> None:
    today = Today()
    settings = patroni.settings(balanced=balanced) | TIMEOUTS
    settings |= {"CACHE_URI": valkey.uri, "TIMEZONE": today.zone}
    gaps: dict[str, Gaps] = {}
    with (
        Service(**settings).wait_until() as one,
        Service(**settings).wait_until() as other,
        Workload([one, other], today, writers=2, sharing=1, readers=3, forgetters=0) as workload,
    ):
        workload.recover(100)
        for fault in faults:
            leader = eventually(lambda: patroni.leader, within=60)
            begin = time.monotonic()
            with getattr(patroni, fault)(leader):
                patroni.another_leads(leader)
                workload.recover(100)
            # It comes back as a follower, whatever it knew when it was the leader.
            eventually(patroni.all_follow, within=60)
            if fault != faults[-1]:
                patroni.settle()
            workload.recover(100)
            gaps[fault] = Gaps.of(workload.history, begin, time.monotonic())
    found = violations(workload.history, today.rows(patroni.stored()))
    assert found == []
    for fault, gap in gaps.items():
        print(f"{fault}: {gap}")
    seen = Counter((o.method, "stale" if o.stale else o.status) for o in workload.history)
    print(len(workload.history), "requests:", dict(seen))
    # It was worth checking: everything took part, and was missed.
    assert min(seen["GET", 200], seen["PUT", 204]) > 200
    assert seen["PUT", 503] > 0
    assert seen["GET", "stale"] > 0
