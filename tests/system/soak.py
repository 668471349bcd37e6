"""`python -m tests.system.soak MINUTES`: check the promise for long, with faults at random.

Each combination of primary, replica and cache has its share of the time. The first part is
calm, to measure what reads cost. Exits with 1 if the promise was broken, and fails if the
service does not recover from a fault.
"""

import random
import sys
import time
from collections import defaultdict
from contextlib import ExitStack

from tests.system.deployment import COMBINATIONS, Combination, Deployment, Fault, Usage
from tests.system.promise import Operation, Violation, violations
from tests.system.workload import Today, Workload

#: Shorter than usual, so that more faults fit into the time.
TIMEOUTS = {"STATEMENT_TIMEOUT": "1", "CONNECT_TIMEOUT": "1", "REQUEST_TIMEOUT": "3"}

#: The part of the time without faults.
CALM = 0.2

#: Seconds after which a history is checked and forgotten: memory is bounded.
ROUND = 60.0

#: Seconds between two lines that say how far it is.
PROGRESS = 5.0

#: How many violations are printed in full.
SHOWN = 10


class Soak:
    """The test of one combination."""

    def __init__(self, deployment: Deployment, combination: Combination) -> None:
        self.combination = combination
        self.checked = 0
        self.violations: list[Violation] = []
        self.usage = Usage(0, 0, 0, 0, 0)
        #: Seconds that each GET and each PUT took while all was calm.
        self.gets: list[float] = []
        self.puts: list[float] = []
        self._deployment = deployment
        self._today = Today()
        self._said = 0.0

    def run(self, seconds: float) -> None:
        self._deployment.heal()
        self._deployment.empty()
        end = time.monotonic() + seconds
        settings = TIMEOUTS | {"TIMEZONE": self._today.zone}
        with self._deployment.services(self.combination, **settings) as services:
            with Workload(services, self._today) as workload:
                workload.recover()
                before = Usage.of(self._deployment)
                begin = len(workload.history)
                self._pause(workload, time.monotonic() + seconds * CALM, "calm")
                self.usage = Usage.of(self._deployment) - before
                calm = workload.history[begin:]
            self.gets = _latencies(calm, "GET")
            self.puts = _latencies(calm, "PUT")
            self._check(workload.history)
            while time.monotonic() < end:
                with Workload(services, self._today) as workload:
                    self._inject(workload, min(end, time.monotonic() + ROUND))
                self._check(workload.history)

    def _inject(self, workload: Workload, end: float) -> None:
        """Let things happen to one or two servers at a time."""
        faults: dict[str, list[tuple[str, Fault]]] = defaultdict(list)
        for name, fault in self._deployment.faults(self.combination).items():
            faults[name.split()[0]].append((name, fault))
        while time.monotonic() < end:
            servers = random.sample(list(faults), min(len(faults), random.choice((1, 1, 2))))
            chosen = [random.choice(faults[server]) for server in servers]
            with ExitStack() as stack:
                for _, fault in chosen:
                    stack.enter_context(fault())
                names = ", ".join(name for name, _ in chosen)
                self._pause(workload, time.monotonic() + random.uniform(0.2, 4), names)
            workload.recover()

    def _pause(self, workload: Workload, end: float, what: str) -> None:
        while (now := time.monotonic()) < end:
            if now - self._said >= PROGRESS:
                self._said = now
                count = self.checked + len(workload.history)
                print(f"{self.combination}: {count} operations; {what}", flush=True)
            time.sleep(min(end - now, 0.2))

    def _check(self, history: list[Operation]) -> None:
        self.violations += violations(history, self._today.rows(self._deployment.stored()))
        self.checked += len(history)

    HEAD = (
        " " * 26 + "operations violations  per 100 GETs while calm:   GET p50  p99  PUT p50  p99\n"
        f"{'':26}{'':10} {'':10}  rows of  statements of\n"
        f"{'':26}{'':10} {'':10}  primary  primary replica     ms   ms      ms   ms"
    )

    def __str__(self) -> str:
        gets = len(self.gets) / 100
        usage = self.usage
        numbers = [
            usage.primary_rows / gets,
            (usage.primary_batches + usage.fences) / gets,
            usage.replica_batches / gets,
            *(1000 * _quantile(t, q) for t in (self.gets, self.puts) for q in (0.5, 0.99)),
        ]
        head = f"{self.combination!s:26}{self.checked:10} {len(self.violations):10}"
        return "  ".join([head, *(f"{number:6.1f}" for number in numbers)])


def _latencies(history: list[Operation], method: str) -> list[float]:
    return sorted(o.end - o.start for o in history if o.method == method)


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[int(q * (len(ordered) - 1))]


def main(minutes: float) -> int:
    seed = time.time_ns()
    random.seed(seed)
    print(f"{minutes:g} minutes, seed {seed}", flush=True)
    with Deployment(replicas=1, cache=True) as deployment:
        soaks = [Soak(deployment, combination) for combination in COMBINATIONS]
        for soak in soaks:
            soak.run(minutes * 60 / len(soaks))
    print("", Soak.HEAD, *soaks, sep="\n")
    broken = [violation for soak in soaks for violation in soak.violations]
    for violation in broken[:SHOWN]:
        print("", violation.reason, violation.operation, violation.write, sep="\n  ")
    print(f"\n{sum(soak.checked for soak in soaks)} operations checked, {len(broken)} violations")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
