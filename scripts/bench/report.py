"""From measurements to tables, in Markdown that is read as it is."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from scripts.bench.load import WORKLOADS, Load
from scripts.bench.registry import BY_NAME, Contestant
from scripts.bench.usage import Memory

#: What the columns of `table` mean.
COLUMNS = """\
*server*, *PostgreSQL*: µs of CPU per request, of all processes of each. *±*: half of the range of
requests/s over the rounds. *p50*, *p99*: ms. *statements*, *WAL*: statements, and bytes of the
write-ahead log, per request. *hello ÷ it*: the ratio of requests/s, and of CPU (server and
PostgreSQL), in the same rounds; for `naive-sqlite`, that of `hello-sqlite`. Errors are answers
from 400 on, timeouts and broken connections; where there were none, they are not mentioned.
"""

MEMORY = "MB: the largest process, and all processes.\n"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class Setting(NamedTuple):
    #: What was measured together: see `suites.py`.
    suite: str
    users: int
    workers: int
    connections: int
    workload: str

    def __str__(self) -> str:
        return (
            f"{WORKLOADS[self.workload]} · {counted(self.connections, 'connection')} · "
            f"{counted(self.workers, 'worker')} · {count(self.users)} users"
        )


@dataclass(frozen=True)
class Measurement:
    """One contestant in one round. None is what it does not have."""

    rate: float
    p50: float
    p99: float
    errors: int
    #: CPU per request, in µs, of the server, of the primary or only PostgreSQL, and so on.
    server_us: float | None
    postgresql_us: float | None
    replica_us: float | None
    cache_us: float | None
    #: Per request, on the primary: bytes of the log, statements, and rows that hello looked up.
    wal: float | None
    statements: float | None
    found: float | None
    rss: float | None
    pss: float | None

    @classmethod
    def of(cls, asked: Load, used: dict[str, float], memory: Memory | None) -> "Measurement":
        """`used`: see `Entry`; CPU in seconds."""

        def each(name: str, unit: float = 1) -> float | None:
            return used[name] * unit / max(1, asked.requests) if name in used else None

        return cls(
            rate=asked.requests / asked.seconds,
            p50=asked.p50,
            p99=asked.p99,
            errors=asked.errors,
            server_us=each("server", 1e6),
            postgresql_us=each("postgresql", 1e6),
            replica_us=each("replica", 1e6),
            cache_us=each("cache", 1e6),
            wal=each("wal"),
            statements=each("statements"),
            found=each("found"),
            rss=memory and memory.rss,
            pss=memory and memory.pss,
        )

    @property
    def cpu_us(self) -> float:
        parts = (self.server_us, self.postgresql_us, self.replica_us, self.cache_us)
        return sum(part or 0 for part in parts)


#: Measurements by contestant, one for each round.
Rounds = dict[str, list[Measurement]]

Row = dict[str, float | None]


def summary(rounds: Rounds, contestant: Contestant) -> Row:
    """Medians, the sum of errors, and the median ratios of ours to it."""
    own = rounds[contestant.name]
    fields = [field.name for field in dataclasses.fields(Measurement)]
    row: Row = {name: _median(getattr(one, name) for one in own) for name in fields}
    row["cpu_us"] = _median(one.cpu_us for one in own)
    row["errors"] = sum(one.errors for one in own)
    rates = [one.rate for one in own]
    row["spread"] = (max(rates) - min(rates)) / 2 / (row["rate"] or 1)
    row["times_rate"] = ratio(rounds, contestant.ours, contestant.name, "rate")
    row["times_cpu"] = ratio(rounds, contestant.ours, contestant.name, "cpu_us")
    return row


def ratio(rounds: Rounds, ours: str, its: str, field: str) -> float | None:
    """The median over rounds of one contestant's figure over another's in the same round."""
    pairs = zip(rounds.get(ours, []), rounds.get(its, []), strict=False)
    figures = ((getattr(one, field), getattr(other, field)) for one, other in pairs)
    return _median(one / other for one, other in figures if one is not None and other)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def table(rounds: Rounds) -> str:
    """Everything about everybody in one setting but memory."""
    lines = []
    for name in rounds:
        row = summary(rounds, BY_NAME[name])
        rate = number(row["rate"])
        if row["errors"]:
            rate += f" ({number(row['errors'], 0)} errors)"
        lines.append(
            (
                f"`{name}`",
                *(number(row[field]) for field in ("server_us", "postgresql_us")),
                rate,
                f"{row['spread']:.0%}",
                *(number(row[field]) for field in ("p50", "p99")),
                number(row["statements"], 2),
                number(row["wal"]),
                number(row["times_rate"], 2),
                number(row["times_cpu"], 2),
            )
        )
    headings = ("", "server", "PostgreSQL", "requests/s", "±", "p50", "p99", "statements", "WAL")
    return markdown((*headings, "hello ÷ it: requests/s", "CPU"), lines)


def memory(rounds: Rounds) -> str:
    """What everybody holds who is a server."""
    rows = [(name, summary(rounds, BY_NAME[name])) for name in rounds]
    return markdown(
        ("", "RSS", "PSS"),
        [
            (name, number(row["rss"]), number(row["pss"]))
            for name, row in rows
            if row["rss"] is not None
        ],
    )


def markdown(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table whose columns are aligned in the source too; all but the first to the right."""
    cells = [tuple(headings), *map(tuple, lines)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ("-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:]))
    rows = [(first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])) for first, *rest in cells]
    rows.insert(1, rule)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def number(value: float | None, decimals: int = 1) -> str:
    """`decimals` are for values below ten."""
    if value is None:
        return "–"
    return f"{value:.{decimals}f}" if value < 10 else count(value)


def count(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


class Report:
    """Everything that was measured in a run."""

    def __init__(self, about: dict[str, str], contestants: dict[str, str]) -> None:
        self.about = about
        #: What each contestant is made of.
        self.contestants = contestants
        #: Why a contestant is missing somewhere.
        self.absent: dict[str, str] = {}
        self.results: dict[Setting, Rounds] = {}

    def write(self, path: Path) -> None:
        document = {
            "about": self.about,
            "contestants": self.contestants,
            "absent": self.absent,
            "results": [
                {
                    **setting._asdict(),
                    "rounds": {
                        name: [_rounded(dataclasses.asdict(one)) for one in measured]
                        for name, measured in rounds.items()
                    },
                }
                for setting, rounds in self.results.items()
            ],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Report":
        document = json.loads(path.read_text())
        report = cls(document["about"], document["contestants"])
        report.absent = document["absent"]
        for result in document["results"]:
            rounds = result.pop("rounds")
            report.results[Setting(**result)] = {
                name: [Measurement(**one) for one in measured] for name, measured in rounds.items()
            }
        return report


def _rounded(measured: dict[str, Any]) -> dict[str, Any]:
    """Four digits are more than any of it is worth."""
    return {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in measured.items()
    }
