"""`python -m tests.support.soak MINUTES`: check the promise for long, with faults at random.

Each combination of primary, replica and cache has its share of the time. The first part is
calm, to measure what reads cost. In the rest each fault happens once before any happens again, and
so on. What happened how often is printed in the end, and for each violation what was written to
its user just before. Exits with 1 if the promise was broken, and fails if the
service does not recover from a fault.
"""

import random
import sys
import time
from collections import Counter
from contextlib import ExitStack

from tests.support.promise import Operation, Violation, violations
from tests.support.service import Service
from tests.support.stack import COMBINATIONS, Combination, Fault, Stack
from tests.support.usage import Usage
from tests.support.workload import Today, Workload

#: Shorter than usual, so that more faults fit into the time.
TIMEOUTS = {"STATEMENT_TIMEOUT": "1", "CONNECT_TIMEOUT": "1", "REQUEST_TIMEOUT": "3"}

#: The part of the time without faults.
CALM = 0.2

#: Seconds after which a history is checked and forgotten: memory is bounded.
ROUND = 60.0

#: Seconds between two lines that say how far it is.
PROGRESS = 5.0

#: How many violations are printed in full, one for each user, and of how many seconds before.
SHOWN = 10
BEFORE = 10.0


class Soak:
    """The test of one combination."""

    def __init__(self, stack: Stack, combination: Combination) -> None:
        self.combination = combination
        self.checked = 0
        self.violations: list[Violation] = []
        #: What was done, and what happened, how often.
        self.counts: Counter[str] = Counter()
        #: The violations that are shown, with what led to them.
        self.shown: list[str] = []
        #: When each fault began and ended, by the clock of the operations.
        self._happened: list[tuple[float, float, str]] = []
        self._pending: list[tuple[str, Fault]] = []
        self.usage = Usage(0, 0, 0, 0, 0)
        #: Seconds that each GET and each PUT took while all was calm.
        self.gets: list[float] = []
        self.puts: list[float] = []
        self._stack = stack
        self._today = Today()
        self._said = 0.0

    def run(self, seconds: float) -> None:
        self._stack.heal()
        self._stack.empty()
        end = time.monotonic() + seconds
        settings = TIMEOUTS | {"TIMEZONE": self._today.zone}
        with self._stack.services(self.combination, **settings) as services:
            with self._workload(services) as workload:
                workload.recover()
                before = Usage.of(self._stack)
                begin = len(workload.history)
                self._pause(workload, time.monotonic() + seconds * CALM, "calm")
                self.usage = Usage.of(self._stack) - before
                calm = workload.history[begin:]
            self.gets = _latencies(calm, "GET")
            self.puts = _latencies(calm, "PUT")
            self._check(workload.history)
            while time.monotonic() < end:
                with self._workload(services) as workload:
                    self._inject(workload, min(end, time.monotonic() + ROUND))
                self._check(workload.history)

    def _workload(self, services: list[Service]) -> Workload:
        return Workload(services, self._today, backup=self._stack)

    def _inject(self, workload: Workload, end: float) -> None:
        """Let things happen to one or two servers at a time."""
        while time.monotonic() < end:
            chosen = [self._next_fault() for _ in range(random.choice((1, 1, 2)))]
            # Of each server one thing at most: the other one's turn comes next.
            while len({_server(name) for name, _ in chosen}) < len(chosen):
                self._pending.append(chosen.pop())
            names = ", ".join(name for name, _ in chosen)
            start = time.monotonic()
            with ExitStack() as exits:
                for _, fault in chosen:
                    exits.enter_context(fault())
                self._pause(workload, time.monotonic() + random.uniform(0.2, 4), names)
            self._happened.append((start, time.monotonic(), names))
            self.counts.update(name for name, _ in chosen)
            workload.recover()

    def _next_fault(self) -> tuple[str, Fault]:
        if not self._pending:
            self._pending = list(self._stack.faults(self.combination).items())
            random.shuffle(self._pending)
        return self._pending.pop()

    def _pause(self, workload: Workload, end: float, what: str) -> None:
        while (now := time.monotonic()) < end:
            if now - self._said >= PROGRESS:
                self._said = now
                count = self.checked + len(workload.history)
                print(f"{self.combination}: {count} operations; {what}", flush=True)
            time.sleep(min(end - now, 0.2))

    def _check(self, history: list[Operation]) -> None:
        found = violations(history, self._today.rows(self._stack.stored()))
        # One of each key: the others tell the same.
        ones = {violation.operation.key: violation for violation in reversed(found)}
        for violation in list(ones.values())[: SHOWN - len(self.shown)]:
            self.shown.append(self._story(violation, history))
        self.violations += found
        self.checked += len(history)
        self.counts.update(f"{o.method} {'stale' if o.stale else o.status}" for o in history)
        self.counts["PUT 503, then another date 204"] += _went_on(history)

    def _story(self, violation: Violation, history: list[Operation]) -> str:
        """A violation, and what happened before: what was written to the key, and the faults."""
        read, write = violation.operation, violation.write
        begin = min(read.start, write.start if write else read.start) - BEFORE
        end = min(read.end, history[-1].end)
        lines = [
            (o.start, f"{o.end:.3f} {o.client}: {o.method} {o.value} -> {o.status}")
            for o in history
            if o.key == read.key and o.method != "GET" and begin < o.end and o.start < end
        ]
        lines += [
            (began, f"{ended:.3f} {names}")
            for began, ended, names in self._happened
            if begin < ended and began < end
        ]
        told = [f"{self.combination}: {violation.reason}", str(read), f"missed: {write}"]
        return "\n  ".join(told + [f"{start:.3f} - {text}" for start, text in sorted(lines)])

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


def _server(fault: str) -> str:
    return fault.split()[0]


def _went_on(history: list[Operation]) -> int:
    """How often a PUT of another date was acknowledged to a client whose last one was 503."""
    count = 0
    last: dict[tuple[str, str], Operation] = {}
    for put in history:
        if put.method == "PUT":
            before = last.get((put.client, put.key), put)
            count += before.status == 503 and put.status == 204 and before.value != put.value
            last[put.client, put.key] = put
    return count


def _table(soaks: list[Soak]) -> str:
    """What happened how often in each combination."""
    head = " " * 36 + "".join(f"{soak.combination!s:>26}" for soak in soaks)
    lines = [
        f"{what:36}" + "".join(f"{soak.counts[what]:26}" for soak in soaks)
        for what in sorted(set().union(*(soak.counts for soak in soaks)))
    ]
    return "\n".join([head, *lines])


def _latencies(history: list[Operation], method: str) -> list[float]:
    return sorted(o.end - o.start for o in history if o.method == method)


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[int(q * (len(ordered) - 1))]


def main(minutes: float) -> int:
    seed = time.time_ns()
    random.seed(seed)
    print(f"{minutes:g} minutes, seed {seed}", flush=True)
    with Stack(replicas=1, cache=True, addresses=2) as stack:
        soaks = [Soak(stack, combination) for combination in COMBINATIONS]
        for soak in soaks:
            soak.run(minutes * 60 / len(soaks))
    print("", Soak.HEAD, *soaks, "", _table(soaks), sep="\n")
    broken = [violation for soak in soaks for violation in soak.violations]
    for story in [story for soak in soaks for story in soak.shown][:SHOWN]:
        print("", story, sep="\n")
    print(f"\n{sum(soak.checked for soak in soaks)} operations checked, {len(broken)} violations")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
