"""What the document needs to be measured: the full run, and a quick one to try it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from scripts.bench import registry
from scripts.bench.load import WORKLOADS
from scripts.bench.registry import BY_NAME, DEPLOYMENTS, Store
from scripts.bench.report import Setting

USERS = 10_000
CORES = os.cpu_count() or 1

SERVERS = tuple(one.name for one in registry.ALL if one.name not in DEPLOYMENTS)
#: Those whose growth is looked at: ours, the fastest peers, and the best known.
LEADING = ("hello", "hello-unbatched", "fastapi", "fastify", "go")
#: Those that are asked by few and by many.
QUICKEST = (*LEADING, "bare", "starlette", "blacksheep")
#: Those that can have several processes, or cores; limits are those of one.
SCALING = tuple(
    name
    for name in SERVERS
    if BY_NAME[name].store is Store.POSTGRESQL and not BY_NAME[name].is_limit
)


@dataclass(frozen=True)
class Part:
    """Every workload with every number of connections."""

    workloads: tuple[str, ...]
    connections: tuple[int, ...] = (32,)
    rounds: int = 1
    #: Whom it measures of the suite's contestants.
    contestants: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Suite:
    """Parts for which the same servers are started, once."""

    name: str
    contestants: tuple[str, ...]
    parts: tuple[Part, ...]
    users: int = USERS
    workers: int = 1

    def settings(self) -> Iterator[tuple[Setting, int, tuple[str, ...]]]:
        """Each setting with its rounds and who takes part."""
        for part in self.parts:
            for connections in part.connections:
                for workload in part.workloads:
                    setting = Setting(self.name, self.users, self.workers, connections, workload)
                    yield setting, part.rounds, part.contestants or self.contestants


BOTH = ("get", "put")

FULL = (
    Suite(
        "servers",
        SERVERS,
        (
            Part(tuple(name for name in WORKLOADS if name != "get-paced"), rounds=3),
            Part(BOTH, (1, 8), rounds=2, contestants=(*QUICKEST, "pgbench")),
            # pgbench would take all the time to connect.
            Part(BOTH, (256,), rounds=2, contestants=QUICKEST),
            Part(("get-paced",), (256,), rounds=2, contestants=LEADING),
            Part(BOTH, (64, 512, 1000), contestants=LEADING),
        ),
    ),
    *(
        Suite(
            "workers",
            SCALING,
            (Part(BOTH), Part(BOTH, (64,), rounds=2, contestants=LEADING)),
            workers=n,
        )
        for n in (2, 4, 8, 16, 32)
        if n <= max(2, CORES)
    ),
    Suite("deployments", ("hello", *DEPLOYMENTS), (Part(("get", "put", "mix"), rounds=3),)),
    *(
        Suite("rows", ("hello", "hello-unbatched", "go"), (Part(BOTH, rounds=2),), users=n)
        for n in (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    ),
)

QUICK = (
    Suite(
        "servers",
        SERVERS,
        (
            Part(BOTH),
            Part(("put-same",), contestants=("hello", "go")),
            Part(("get",), (1, 256), contestants=("hello", "go")),
        ),
    ),
    Suite("workers", ("hello", "go"), (Part(("get",)),), workers=2),
    Suite("deployments", ("hello", *DEPLOYMENTS), (Part(("get", "mix")),)),
    *(Suite("rows", ("hello", "go"), (Part(BOTH),), users=n) for n in (1_000, 100_000)),
)

#: Seconds that go by around a measurement, and for starting and checking a contestant.
AROUND, START = 0.5, 2.0


def seconds_each(suites: tuple[Suite, ...], minutes: float) -> int:
    """How long each measurement may take for all of them to end in time; at least 1."""
    steps = [step for suite in suites for step in suite.settings()]
    measurements = sum(rounds * len(names) for _, rounds, names in steps)
    warmups = sum(len(names) for _, _, names in steps)
    # A million users are stored in about ten seconds.
    starts = sum(START * len(suite.contestants) + suite.users / 100_000 for suite in suites)
    left = minutes * 60 - starts - warmups - measurements * AROUND
    return max(1, int(left / measurements))
