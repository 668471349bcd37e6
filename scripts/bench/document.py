"""Write the document from what was measured: `… -m scripts.bench.document JSON MARKDOWN`.

No figure in it is typed by hand. It needs matplotlib, which `prepare` installs.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.bench import plots
from scripts.bench.goals import GOALS, PEERS
from scripts.bench.load import WORKLOADS
from scripts.bench.registry import BY_NAME
from scripts.bench.report import (
    COLUMNS,
    MEMORY,
    Report,
    Rounds,
    Row,
    count,
    markdown,
    memory,
    number,
    summary,
    table,
)
from scripts.bench.suites import LEADING, USERS

INTRODUCTION = """\
# Benchmarks

The service beside other stacks that keep the same contract: on one machine, with the same rows in
one PostgreSQL, asked the same questions in turns. Each was checked for right answers before it was
timed. This page is written by `make benchmarks` from the measurements in
[measurements.json]({directory}/measurements.json).

**Peers do not batch.** They run one statement for each request, as their users write them, over
pools and prepared statements. `hello` runs one statement for all requests that wait at the same
time ([natural batching](decisions/natural-batching.md)); `hello-unbatched`, beside it in every
table, is the same service with one statement for each request, and says how much of the difference
that makes. Alone, with one connection, nothing can be batched: see [there](#connections).

How to read it: CPU per request is the steady figure. Requests per second on {cores} cores that
server, database and load generator share say who leaves most to the others, not what each could do
alone. Latency is that of a client that asks again at once: with 32 connections, p50 is little more
than 32 divided by the requests per second.
"""

OVERVIEW = """\
## In one table

{users} users in PostgreSQL, one worker process (one core for Go), 32 connections that ask again at
once. Requests per second; CPU of server and PostgreSQL per request, in µs; the time that 99 of 100
answers take at most, in ms.
"""

GOALS_OF_DEVELOPERS = """\
## For developers: what it should reach

Ratios in this run; 1 worker where no number is given. `bare` and `falcon-constant-bare` are what is
left without checks, deadlines, ids and metrics: no server, and a measure of what these cost.
"""

DEPLOYMENTS = """\
The same service with what it may use besides the primary, each combination on servers of its own:
µs of CPU per request of each of them. *reads seen*: the share of reads that the primary looked up;
in front of a replica it answers one small statement for each batch instead. Everybody is in the
cache before it is timed: with fewer hits, it is worth less. On one machine all of this shares the
cores; what a replica and a cache are for is what they take off the primary.
"""

ROWS = """\
## Rows

µs of CPU per request of server + PostgreSQL, then requests/s, by the number of stored users; 32
connections. Of a large table, 100 000 users are asked for, evenly spread over it. Each PUT there is
the first change of its page since the last checkpoint, and PostgreSQL logs the whole page then.
"""

WORKERS = """\
## Workers

Requests/s, and p99 in ms, by the number of worker processes (of cores, for `go`); 32 connections.
They share the cores with PostgreSQL and `wrk`.
"""

CONNECTIONS = """\
## Connections

Requests/s, and p99 in ms, by the number of connections; 1 worker.
"""

REPEAT = """\
## How to repeat it

On Debian, besides Python 3.11 or newer and `make`:

    apt-get install wrk                                         needed
    apt-get install nghttp2-client                              for GET, 8 000 a second
    apt-get install nodejs npm                                  for fastify
    apt-get install golang-go golang-github-jackc-pgx-v4-dev    for go

    make benchmarks                                  about 30 minutes; writes this page
    make benchmarks ARGS='--minutes 60'              longer measurements
    make benchmarks ARGS=--quick                     about 3 minutes, to try it: build/benchmarks.md
    make benchmarks ARGS=--redraw                    write it again from measurements.json
    make bench ARGS='--contestants hello,go --workloads get --connections 1,32'
    make bench ARGS=--help

A contestant that is not installed is left out and named. The machine should do nothing else. Use a
Python that was built with `--enable-optimizations`, as Debian's and those of the official images
are, and pyenv's are not unless told (`make PYTHON=/usr/bin/python3 …`): without it, Python code
takes half as much time again. The table of versions says which one it was.

How it is measured: `wrk` with one thread, keep-alive connections, requests made before the clock
starts; for a fixed number of requests a second `h2load` with HTTP/1.1, which measures from the
moment a request is sent; PostgreSQL {postgresql} with `fsync` on, `shared_buffers = 256MB`, no
autovacuum (tables are restored and vacuumed between measurements), `pg_stat_statements` loaded; one
second of warming up where a contestant was asked something else before; {seconds} s for each
measurement; the order turns from round to round; medians. CPU is read from `/proc`, for the whole
tree of processes.
The contestants are in [scripts/bench/contestants](../scripts/bench/contestants), a page each.
"""


class Document:
    """`file` is the document, `directory` beside it has its plots."""

    def __init__(self, report: Report, file: Path) -> None:
        self._report = report
        self._directory = file.with_suffix("")

    def text(self) -> str:
        return "\n".join(self._parts())

    def _parts(self) -> Iterator[str]:
        about = self._report.about
        yield INTRODUCTION.format(directory=self._directory.name, cores=about["cores"])
        yield from self._overview()
        yield f"## 32 connections\n\n{count(USERS)} users, 1 worker.\n"
        yield from self._cpu_plot()
        yield COLUMNS
        for workload, title in WORKLOADS.items():
            if rounds := self._find("servers", USERS, 1, 32, workload):
                yield f"### {title}\n\n{table(rounds)}"
        yield from self._memory()
        yield from self._connections()
        yield from self._workers()
        yield from self._rows()
        yield from self._deployments()
        yield from self._goals()
        yield "## The machine and the versions\n"
        yield "\n".join(f"- {name}: {fact}" for name, fact in about.items()) + "\n"
        yield "### Contestants\n"
        yield _list(self._report.contestants)
        if self._report.absent:
            yield "### Not measured\n"
            yield _list(self._report.absent)
        yield REPEAT.format(
            postgresql=about["PostgreSQL"], seconds=about["seconds of each measurement"]
        )

    def _overview(self) -> Iterator[str]:
        found = {name: self._find("servers", USERS, 1, 32, name) for name in ("get", "put")}
        lines = []
        for name in ("hello", *PEERS):
            if any(name not in rounds for rounds in found.values()):
                continue
            rows = [summary(rounds, BY_NAME[name]) for rounds in found.values()]
            cells = [number(row[field]) for row in rows for field in ("rate", "cpu_us", "p99")]
            lines.append((f"`{name}`: {BY_NAME[name].stack}", *cells))
        headings = ("", "GET/s", "CPU", "p99", "PUT/s", "CPU", "p99")
        yield f"{OVERVIEW.format(users=count(USERS))}\n{markdown(headings, lines)}"

    def _goals(self) -> Iterator[str]:
        yield GOALS_OF_DEVELOPERS
        yield markdown(("goal", "measured", ""), [goal.line(self._report) for goal in GOALS])

    def _cpu_plot(self) -> Iterator[str]:
        panels: dict[str, plots.Bars] = {}
        for workload in ("get", "put"):
            rounds = self._find("servers", USERS, 1, 32, workload)
            panels[WORKLOADS[workload]] = {
                name: _cpu(summary(rounds, BY_NAME[name])) for name in rounds if name != "pgbench"
            }
        if any(panels.values()):
            plots.bars(self._directory / "cpu.svg", panels, "µs of CPU per request")
            yield self._image("cpu", "CPU per request of each contestant")

    def _memory(self) -> Iterator[str]:
        if rounds := self._find("servers", USERS, 1, 32, "get"):
            yield f"### Memory\n\n{MEMORY}\n{memory(rounds)}"

    def _connections(self) -> Iterator[str]:
        yield CONNECTIONS
        panels: dict[str, plots.Lines] = {}
        tables = []
        for workload in ("get", "put"):
            by_count = {
                setting.connections: rounds
                for setting, rounds in sorted(self._report.results.items())
                if setting[:3] == ("servers", USERS, 1) and setting.workload == workload
            }
            tables.append(f"### {WORKLOADS[workload]}: connections\n\n{_grid(by_count)}")
            panels[WORKLOADS[workload]] = {
                name: [
                    (connections, row["rate"] or 0.0)
                    for connections, row in _rows_of(name, by_count)
                ]
                for name in LEADING
            }
        plots.lines(self._directory / "connections.svg", panels, "connections", "requests/s")
        yield self._image("connections", "Requests per second by the number of connections")
        yield from tables

    def _workers(self) -> Iterator[str]:
        yield WORKERS
        for workload in ("get", "put"):
            by_count = {
                setting.workers: rounds
                for setting, rounds in sorted(self._report.results.items())
                if setting.suite in ("servers", "workers")
                and (setting.users, setting.connections) == (USERS, 32)
                and setting.workload == workload
            }
            if len(by_count) > 1:
                yield f"### {WORKLOADS[workload]}: workers\n\n{_grid(by_count, everybody=False)}"

    def _rows(self) -> Iterator[str]:
        results = {
            setting: rounds
            for setting, rounds in sorted(self._report.results.items())
            if setting.suite == "rows"
        }
        if not results:
            return
        yield ROWS
        panels: dict[str, plots.Lines] = {}
        for workload in ("get", "put"):
            by_count = {s.users: rounds for s, rounds in results.items() if s.workload == workload}
            names = list(dict.fromkeys(name for rounds in by_count.values() for name in rounds))
            panels[WORKLOADS[workload]] = {
                name: [(n, row["postgresql_us"] or 0.0) for n, row in _rows_of(name, by_count)]
                for name in names
            }
            lines = []
            for name in names:
                cells = {
                    n: f"{number(row['server_us'])} + {number(row['postgresql_us'])}, "
                    f"{number(row['rate'])}"
                    for n, row in _rows_of(name, by_count)
                }
                lines.append((f"`{name}`", *(cells.get(n, "–") for n in by_count)))
            headings = ("", *(count(n) for n in by_count))
            yield f"### {WORKLOADS[workload]}: rows\n\n{markdown(headings, lines)}"
        plots.lines(self._directory / "rows.svg", panels, "rows", "PostgreSQL: µs per request")
        yield self._image("rows", "PostgreSQL's CPU per request by the number of rows")

    def _deployments(self) -> Iterator[str]:
        results = {
            s: rounds for s, rounds in self._report.results.items() if s.suite == "deployments"
        }
        if not results:
            return
        yield f"## With a replica and a cache\n\n{DEPLOYMENTS}"
        panels: dict[str, plots.Bars] = {}
        for setting, rounds in results.items():
            rows = {name: summary(rounds, BY_NAME[name]) for name in rounds}
            title = WORKLOADS[setting.workload]
            panels[title] = {_combination(name): _cpu(row) for name, row in rows.items()}
            reads = {"get": 1.0, "mix": 0.9}.get(setting.workload)
            lines = [
                (
                    _combination(name),
                    *(number(row[f"{part}_us"]) for part in _CPU),
                    "–" if reads is None else f"{(row['found'] or 0) / reads:.0%}",
                    number(row["statements"], 2),
                    *(number(row[part]) for part in ("rate", "p50", "p99")),
                )
                for name, row in rows.items()
            ]
            headings = (
                *("", "server", "primary", "replica", "Valkey", "reads seen"),
                *("statements on the primary", "requests/s", "p50", "p99"),
            )
            yield f"### {title}: deployments\n\n{markdown(headings, lines)}"
        plots.bars(self._directory / "deployments.svg", panels, "µs of CPU per request")
        yield self._image("deployments", "CPU per request with a replica and a cache")

    def _find(self, *wanted: object) -> Rounds:
        return next((r for s, r in self._report.results.items() if tuple(s) == wanted), {})

    def _image(self, name: str, text: str) -> str:
        return f"![{text}]({self._directory.name}/{name}.svg)\n"


#: The parts of the CPU, with their names in plots.
_CPU = {"server": "server", "postgresql": "PostgreSQL", "replica": "replica", "cache": "Valkey"}


def _list(texts: dict[str, str]) -> str:
    return "\n".join(f"- `{name}`: {text}" for name, text in texts.items()) + "\n"


def _cpu(row: Row) -> dict[str, float]:
    figures = {text: row[f"{part}_us"] for part, text in _CPU.items()}
    return {text: figure for text, figure in figures.items() if figure is not None}


def _combination(name: str) -> str:
    contestant = BY_NAME[name]
    parts = ["primary", *(part for part in ("replica", "cache") if getattr(contestant, part))]
    return " + ".join(parts)


def _rows_of(name: str, by_count: dict[int, Rounds]) -> list[tuple[int, Row]]:
    return [(n, summary(rounds, BY_NAME[name])) for n, rounds in by_count.items() if name in rounds]


def _grid(by_count: dict[int, Rounds], *, everybody: bool = True) -> str:
    """Requests/s and p99 of each contestant for each number; or of those that have them all."""
    lines = []
    present = {name for rounds in by_count.values() for name in rounds}
    for name in (name for name in BY_NAME if name in present):
        cells = {
            n: f"{number(row['rate'])} ({number(row['p99'])})"
            for n, row in _rows_of(name, by_count)
        }
        if everybody or len(cells) == len(by_count):
            lines.append((f"`{name}`", *(cells.get(n, "–") for n in by_count)))
    return markdown(("", *map(str, by_count)), lines)


def main() -> None:
    measurements, file = map(Path, sys.argv[1:])
    document = Document(Report.read(measurements), file)
    file.write_text(document.text())
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
