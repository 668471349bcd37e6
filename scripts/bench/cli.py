"""Compare the service with other stacks: same machine, same data, same questions, same run.

Every contestant answers the same load in turn, several rounds of it, so that whatever
else the machine does meets all of them. Each must answer rightly before it is timed.
"""

import argparse
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

from scripts.bench import registry, report
from scripts.bench.about import about
from scripts.bench.contract import WrongAnswer
from scripts.bench.database import Databases
from scripts.bench.entry import Entry
from scripts.bench.load import WORKLOADS
from scripts.bench.registry import Contestant, Store
from scripts.bench.report import Rounds, Setting

BATCHING = """\
Peers run one statement per request, as their users write them. hello runs one statement
for all requests that wait at the same time; hello-unbatched is hello without that.
"""


def _several(allowed: dict[str, str]) -> Callable[[str], list[str]]:
    def convert(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(allowed)}")
        return names

    return convert


def _counts(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    contestants = {one.name: one.stack for one in registry.ALL}
    parser = argparse.ArgumentParser(
        prog="python scripts/bench",
        description=__doc__,
        epilog="\n".join(
            [
                "workloads:",
                *(f"  {name:<22}{text}" for name, text in WORKLOADS.items()),
                "contestants:",
                *(f"  {name:<22}{text}" for name, text in contestants.items()),
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--contestants", type=_several(contestants), default=list(contestants), metavar="A,B,…")
    add("--workloads", type=_several(WORKLOADS), default=["get", "put"], metavar="A,B,…")
    add("--connections", type=_counts, default=[32], metavar="N,…", help="of wrk (32)")
    add("--workers", type=_counts, default=[1], metavar="N,…", help="of each server (1)")
    add("--users", type=_count, default=10_000, metavar="N", help="that are stored (10000)")
    add("--rounds", type=_count, default=3, metavar="N", help="that each is measured (3)")
    add("--seconds", type=_count, default=4, metavar="N", help="of a measurement (4)")
    add("--warmup", type=_count, default=1, metavar="N", help="seconds before it (1)")
    add("--json", type=Path, metavar="FILE", help="write every measurement there")
    return parser


class Benchmark:
    def __init__(self, options: argparse.Namespace, databases: Databases) -> None:
        self._options = options
        self._databases = databases
        self._chosen = [one for one in registry.ALL if one.name in options.contestants]
        self._about = about(databases.version)
        self._results: dict[Setting, Rounds] = {}
        #: Why a contestant is not in a table.
        self._absent: dict[str, str] = {}
        self.failed = False

    def run(self) -> None:
        options = self._options
        print("## hello and other stacks\n")
        print(f"{options.users} users; medians of {options.rounds} rounds of {options.seconds} s.")
        print(BATCHING)
        print("\n".join(f"- {name}: {fact}" for name, fact in self._about.items()), end="\n\n")
        print("\n".join(f"- {one.name}: {one.stack}" for one in self._chosen), end="\n\n")
        print(report.EXPLANATION)
        for workers in options.workers:
            self._run_with(workers)
        if self._absent:
            print("### Not measured\n")
            print("\n".join(f"- {name}: {reason}" for name, reason in self._absent.items()))

    def _run_with(self, workers: int) -> None:
        entries: list[Entry] = []
        try:
            for contestant in self._chosen:
                if reason := _why_not(contestant, workers):
                    self._leave_out(contestant, reason)
                    continue
                _say(f"starting {contestant.name}")
                entry = Entry(contestant, self._databases, self._options.users)
                entries.append(entry)
                try:
                    entry.start(workers)
                except (WrongAnswer, RuntimeError) as ex:
                    self._fail(entries, entry, ex)
            for connections, workload in product(
                self._options.connections, self._options.workloads
            ):
                self._measure(entries, Setting(workers, connections, workload))
        finally:
            for entry in entries:
                entry.stop()

    def _measure(self, entries: list[Entry], setting: Setting) -> None:
        options = self._options
        rounds: Rounds = {}
        for number in range(options.rounds):
            # Another one begins each time: nobody always follows the same neighbour.
            turn = number % max(1, len(entries))
            for entry in entries[turn:] + entries[:turn]:
                name = entry.contestant.name
                _say(f"{setting} · round {number + 1} of {options.rounds} · {name}")
                try:
                    measured = entry.measure(
                        setting.workload, setting.connections, options.seconds, options.warmup
                    )
                except RuntimeError as ex:
                    self._fail(entries, entry, ex)
                    rounds.pop(name, None)
                    continue
                rounds.setdefault(name, []).append(measured)
        self._results[setting] = rounds
        present = [entry.contestant for entry in entries if entry.contestant.name in rounds]
        print(report.table(setting, rounds, present), flush=True)
        if options.json:
            report.write_json(options.json, self._about, self._results, self._chosen, self._absent)

    def _leave_out(self, contestant: Contestant, reason: str) -> None:
        _say(f"without {contestant.name}: {reason}")
        self._absent[contestant.name] = reason

    def _fail(self, entries: list[Entry], entry: Entry, ex: Exception) -> None:
        self.failed = True
        _say(str(ex))
        self._leave_out(entry.contestant, f"{type(ex).__name__}: {str(ex).splitlines()[0]}")
        entry.stop()
        entries.remove(entry)


def _why_not(contestant: Contestant, workers: int) -> str | None:
    if workers > 1 and contestant.store is Store.MEMORY:
        return f"not with {workers} workers: its users are in {contestant.store.value}"
    return contestant.missing


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    options = _parser().parse_args()
    if not shutil.which("wrk"):
        _say("bench: wrk is not installed: apt-get install wrk")
        return 2
    # Whatever ends the benchmark, nothing that it started stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    databases = Databases(options.users)
    try:
        benchmark = Benchmark(options, databases)
        benchmark.run()
    except KeyboardInterrupt:
        return 130
    finally:
        databases.destroy()
    return int(benchmark.failed)
