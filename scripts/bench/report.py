"""From measurements to tables, in Markdown that is read as it is."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from scripts.bench.load import WORKLOADS, Load
from scripts.bench.registry import Contestant
from scripts.bench.usage import Memory

EXPLANATION = """\
server, PostgreSQL: µs of CPU per request, all processes of each. p50, p99: ms, seen by \
the client. RSS: MB, the largest process. PSS: MB, all processes, per worker. WAL: bytes \
per request. errors: in all rounds: answers from 400 on, timeouts, broken connections. \
±: how far requests/s lay apart, half of the range over the median. ours ÷ its: hello's \
requests/s, and hello's CPU (server + PostgreSQL), over the contestant's in the same round.
"""


class Setting(NamedTuple):
    workers: int
    connections: int
    workload: str

    def __str__(self) -> str:
        return (
            f"{WORKLOADS[self.workload]} · {self.connections} "
            f"{'connection' if self.connections == 1 else 'connections'} · {self.workers} "
            f"{'worker' if self.workers == 1 else 'workers'}"
        )


@dataclass(frozen=True)
class Measurement:
    """One contestant in one round. None is what it does not have."""

    rate: float
    p50: float
    p99: float
    errors: int
    server_us: float | None
    postgresql_us: float | None
    wal: float | None
    rss: float | None
    pss: float | None

    @classmethod
    def of(cls, asked: Load, used: dict[str, float], memory: Memory | None) -> "Measurement":
        """`used`: CPU seconds of "server" and "postgresql", bytes of "wal"."""

        def each(name: str, unit: float) -> float | None:
            return used[name] * unit / max(1, asked.requests) if name in used else None

        return cls(
            rate=asked.requests / asked.seconds,
            p50=asked.p50,
            p99=asked.p99,
            errors=asked.errors,
            server_us=each("server", 1e6),
            postgresql_us=each("postgresql", 1e6),
            wal=each("wal", 1),
            rss=memory and memory.rss,
            pss=memory and memory.pss,
        )

    @property
    def cpu_us(self) -> float:
        return (self.server_us or 0) + (self.postgresql_us or 0)


#: Measurements by contestant, one for each round.
Rounds = dict[str, list[Measurement]]


def summary(rounds: Rounds, contestant: Contestant) -> dict[str, float | None]:
    """Medians, the sum of errors, and the median ratios of ours to it."""
    own = rounds[contestant.name]
    fields = [field.name for field in dataclasses.fields(Measurement)]
    row = {name: _median([getattr(one, name) for one in own]) for name in fields}
    row["errors"] = sum(one.errors for one in own)
    rates = [one.rate for one in own]
    row["spread"] = (max(rates) - min(rates)) / 2 / (row["rate"] or 1)
    pairs = list(zip(rounds.get(contestant.ours, []), own, strict=False))
    row["times_rate"] = _median([ours.rate / one.rate if one.rate else None for ours, one in pairs])
    row["times_cpu"] = _median(
        [ours.cpu_us / one.cpu_us if one.cpu_us else None for ours, one in pairs]
    )
    return row


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


HEADINGS = (
    *("contestant", "server", "PostgreSQL", "requests/s", "±", "p50", "p99", "RSS", "PSS"),
    *("WAL", "errors", "ours ÷ its: requests/s", "CPU"),
)


def table(setting: Setting, rounds: Rounds, contestants: list[Contestant]) -> str:
    lines = [HEADINGS]
    for contestant in contestants:
        row = summary(rounds, contestant)
        ours = "" if contestant.ours == "hello" else f" {contestant.ours}"
        lines.append(
            (
                contestant.name,
                *(_number(row[name]) for name in ("server_us", "postgresql_us", "rate")),
                f"{row['spread']:.0%}",
                *(_number(row[name]) for name in ("p50", "p99", "rss", "pss", "wal")),
                str(row["errors"]),
                _times(row["times_rate"]) + ours,
                _times(row["times_cpu"]),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    cells = [[first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])] for first, *rest in lines]
    cells.insert(1, rule)
    return f"### {setting}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in cells) + "\n"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}".replace(",", " ")


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def write_json(
    path: Path,
    about: dict[str, Any],
    results: dict[Setting, Rounds],
    contestants: list[Contestant],
    absent: dict[str, str],
) -> None:
    """Everything that was measured."""
    document = {
        "about": about,
        "absent": absent,
        "contestants": {one.name: one.stack for one in contestants},
        "results": [
            {
                **setting._asdict(),
                "contestant": one.name,
                "summary": summary(rounds, one),
                "rounds": [dataclasses.asdict(measured) for measured in rounds[one.name]],
            }
            for setting, rounds in results.items()
            for one in contestants
            if rounds.get(one.name)
        ],
    }
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
