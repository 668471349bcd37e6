"""Compare the service with other stacks: same machine, same data, same questions, same run.

Every contestant answers the same load in turn, several rounds of it, so that whatever
else the machine does meets all of them. Each must answer rightly before it is timed.
"""

import argparse
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from scripts.bench import registry, report, suites
from scripts.bench.about import about, optimised
from scripts.bench.contract import WrongAnswer
from scripts.bench.database import Databases
from scripts.bench.entry import Entry
from scripts.bench.goals import GOALS
from scripts.bench.load import WORKLOADS
from scripts.bench.registry import BY_NAME, PREPARED, Contestant, Store
from scripts.bench.report import Report, Rounds, Setting
from scripts.bench.servers import ROOT
from scripts.bench.suites import Part, Suite

#: Where the document goes; its measurements and plots go into a directory of its name.
DOCUMENT = ROOT / "docs" / "benchmarks.md"
#: A quick run does not replace what a full one found.
TRIAL = ROOT / "build" / "benchmarks.md"

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
    add("--contestants", type=_several(contestants), default=suites.SERVERS, metavar="A,B,…")
    add("--workloads", type=_several(WORKLOADS), default=["get", "put"], metavar="A,B,…")
    add("--connections", type=_counts, default=[32], metavar="N,…", help="of wrk (32)")
    add("--workers", type=_counts, default=[1], metavar="N,…", help="of each server (1)")
    add("--users", type=_count, default=10_000, metavar="N", help="that are stored (10000)")
    add("--rounds", type=_count, default=3, metavar="N", help="that each is measured (3)")
    add("--seconds", type=_count, default=4, metavar="N", help="of a measurement (4)")
    add("--warmup", type=_count, default=1, metavar="N", help="seconds before it (1)")
    add("--json", type=Path, metavar="FILE", help="write every measurement there")
    document = parser.add_argument_group(
        "the document", "docs/benchmarks.md with its plots; the options above do not matter then"
    )
    add = document.add_argument
    add("--document", action="store_true", help="measure all that it shows, and write it")
    add("--quick", action="store_true", help="try it, in 3 minutes: build/benchmarks.md")
    add("--minutes", type=_count, default=30, metavar="N", help="that it may take (30)")
    add("--redraw", action="store_true", help="write it again from what was measured")
    return parser


class Benchmark:
    """Measures suites, and adds what it finds to a report, which it writes to `file` as it goes."""

    def __init__(
        self, plan: Sequence[Suite], *, seconds: int, warmup: int, file: Path | None, tables: bool
    ) -> None:
        self._plan = plan
        self._seconds = seconds
        self._warmup = warmup
        self._file = file
        self._tables = tables
        steps = [step for suite in plan for step in suite.settings()]
        names = {name for suite in plan for name in suite.contestants}
        self._total = sum(rounds * len(names) for _, rounds, names in steps)
        self._done = 0
        self._start = time.monotonic()
        chosen = {one.name: one.stack for one in registry.ALL if one.name in names}
        self.report = Report(about(), chosen)
        self.report.about["seconds of each measurement"] = str(seconds)
        self.failed = False

    def run(self) -> None:
        users = 0
        databases: Databases | None = None
        try:
            for suite in self._plan:
                if databases is None or suite.users != users:
                    if databases:
                        databases.destroy()
                        databases = None
                    _say(f"storing {report.count(suite.users)} users")
                    users, databases = suite.users, Databases(suite.users)
                    self.report.about["PostgreSQL"] = databases.version
                self._run_suite(suite, databases)
        finally:
            if databases:
                databases.destroy()

    def _run_suite(self, suite: Suite, databases: Databases) -> None:
        entries: list[Entry] = []
        try:
            for name in suite.contestants:
                contestant = BY_NAME[name]
                if reason := _why_not(contestant, suite.workers):
                    self._leave_out(contestant, reason)
                    continue
                _say(f"starting {name}")
                entry = Entry(contestant, databases, suite.users)
                entries.append(entry)
                try:
                    entry.start(suite.workers)
                    if version := entry.cache_version:
                        self.report.about["Valkey"] = version
                except (WrongAnswer, RuntimeError) as ex:
                    workers = report.counted(suite.workers, "worker")
                    self._fail(entries, entry, ex, f"the start with {workers}")
            for setting, rounds, names in suite.settings():
                self._measure(entries, setting, rounds, names)
        finally:
            for entry in entries:
                entry.stop()

    def _measure(
        self, entries: list[Entry], setting: Setting, count: int, names: Sequence[str]
    ) -> None:
        rounds: Rounds = {}
        expected = self._done + count * len(names)
        for number in range(count):
            present = [entry for entry in entries if entry.contestant.name in names]
            # Another one begins each time: nobody always follows the same neighbour.
            turn = number % max(1, len(present))
            for entry in present[turn:] + present[:turn]:
                name = entry.contestant.name
                _say(f"{self._progress()} · {setting} · round {number + 1} of {count} · {name}")
                self._done += 1
                try:
                    measured = entry.measure(
                        setting.workload, setting.connections, self._seconds, self._warmup
                    )
                except RuntimeError as ex:
                    self._fail(entries, entry, ex, str(setting))
                    rounds.pop(name, None)
                    continue
                rounds.setdefault(name, []).append(measured)
        self._done = expected  # whoever is missing takes no time
        self.report.results[setting] = rounds
        if self._tables:
            print(f"### {setting}\n\n{report.table(rounds)}\n{report.memory(rounds)}", flush=True)
        if self._file:
            self.report.write(self._file)

    def _progress(self) -> str:
        text = f"{self._done + 1} of {self._total}"
        if self._done >= 10:
            left = (time.monotonic() - self._start) / self._done * (self._total - self._done)
            text += f" · {left / 60:.0f} min left"
        return text

    def _leave_out(self, contestant: Contestant, reason: str) -> None:
        _say(f"without {contestant.name}: {reason}")
        self.report.absent[contestant.name] = reason

    def _fail(self, entries: list[Entry], entry: Entry, ex: Exception, where: str) -> None:
        """Leave a contestant out from here to the end of the suite."""
        self.failed = True
        _say(str(ex))
        what = f"{type(ex).__name__}: {' '.join(str(ex).splitlines()[:2])}"
        self._leave_out(entry.contestant, f"from {where} to the end of its suite: {what}")
        entry.stop()
        entries.remove(entry)


def _why_not(contestant: Contestant, workers: int) -> str | None:
    if workers > 1 and contestant.store is Store.MEMORY:
        return f"not with {workers} workers: its users are in {contestant.store.value}"
    return contestant.missing


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _compare(options: argparse.Namespace) -> Benchmark:
    """Measure what the options say, and print it."""
    names = tuple(one.name for one in registry.ALL if one.name in options.contestants)
    part = Part(tuple(options.workloads), tuple(options.connections), options.rounds)
    plan = [Suite("", names, (part,), options.users, workers) for workers in options.workers]
    benchmark = Benchmark(
        plan, seconds=options.seconds, warmup=options.warmup, file=options.json, tables=True
    )
    print("## hello and other stacks\n")
    print(f"Medians of {options.rounds} rounds of {options.seconds} s.", BATCHING)
    print("\n".join(f"- {name}: {fact}" for name, fact in benchmark.report.about.items()), "\n")
    print("\n".join(f"- {name}: {BY_NAME[name].stack}" for name in names), "\n")
    print(f"{report.COLUMNS}\nRSS, PSS: {report.MEMORY}")
    benchmark.run()
    lines = [goal.line(benchmark.report) for goal in GOALS]
    if reached := [line for line in lines if line[1] != "–"]:
        print(f"### Goals\n\n{report.markdown(('goal', 'measured', ''), reached)}")
    if benchmark.report.absent:
        print("### Not measured\n")
        for name, reason in benchmark.report.absent.items():
            print(f"- {name}: {reason}")
    return benchmark


def _document(options: argparse.Namespace) -> Benchmark:
    """Measure all that the document shows, and write it."""
    plan = suites.QUICK if options.quick else suites.FULL
    seconds = 1 if options.quick else suites.seconds_each(plan, options.minutes)
    benchmark = Benchmark(
        plan, seconds=seconds, warmup=1, file=_measurements(options), tables=False
    )
    benchmark.run()
    return benchmark


def _file(options: argparse.Namespace) -> Path:
    return TRIAL if options.quick else DOCUMENT


def _measurements(options: argparse.Namespace) -> Path:
    return options.json or _file(options).with_suffix("") / "measurements.json"


def _write(options: argparse.Namespace) -> int:
    """Write the document with the interpreter that has matplotlib."""
    arguments = [_measurements(options).resolve(), _file(options)]
    return subprocess.run(
        [PREPARED / "bin" / "python", "-m", "scripts.bench.document", *arguments], cwd=ROOT
    ).returncode


def main() -> int:
    options = _parser().parse_args()
    if options.redraw:
        return _write(options)
    if not shutil.which("wrk"):
        _say("bench: wrk is not installed: apt-get install wrk")
        return 2
    if not optimised():
        _say(
            "bench: this Python was built without --enable-optimizations, and is slow; see about.py"
        )
    # A connection is a file, for the servers too.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Whatever ends the benchmark, nothing that it started stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        benchmark = (_document if options.document else _compare)(options)
    except KeyboardInterrupt:
        return 130
    if options.document and _write(options):
        return 1
    return int(benchmark.failed)
