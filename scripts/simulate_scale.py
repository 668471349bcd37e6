#!/usr/bin/env python3
"""simulate_scale.py: how much of everything a given load needs.

    scripts/simulate_scale.py                     the tables of docs/scaling.md
    scripts/simulate_scale.py --users 1e7 --requests 2e4 --margin 2
    scripts/simulate_scale.py --write             put the tables and the plot into docs/

Every assumption is a field of `Assumptions`, and an option of the same name. A *cell* is a
primary of PostgreSQL with its standby and replicas, a cache, and the pods that use them; users
are spread over cells by a hash of their name (docs/scaling.md). What a lane makes of requests
that arrive at random is simulated, request by request; the rest is arithmetic.
"""

import argparse
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import ceil, exp, log10
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


#: Lanes that read at a time. Another begins only beside a statement that takes more than 2 ms:
#: hello/batching.py.
READING = 1


@dataclass(frozen=True)
class Assumptions:
    """What goes in. Times are µs of one core's work unless the name says otherwise."""

    users: float = 1e9
    requests: float = 1e6  # per second
    write_share: float = 0.05  # of the requests, each with a new date
    hit_share: float = 0.0  # of the GETs, answered by the cache

    # Measured: the service's own work for a request, and PostgreSQL's for a statement and for
    # each row in it. With the batches of the benchmark (about 16) that is 7 µs for a GET and
    # 13 µs for a PUT.
    service_get_us: float = 28
    service_put_us: float = 34
    statement_get_us: float = 20
    row_get_us: float = 5.75
    statement_put_us: float = 60
    row_put_us: float = 9.25
    fence_us: float = 10  # of the primary, for each batch that a replica reads

    # What a benchmark on one machine leaves out: a real network, TLS to the database, a table
    # larger than the processor's caches. All work is multiplied by it.
    margin: float = 3
    utilisation: float = 0.6  # of each core, so that a zone may fail

    # Measured: 1e6 users of 14 characters; dates changed at random.
    row_bytes: float = 131  # table and index
    wal_bytes: float = 250  # for a changed row
    image_bytes: float = 6960  # for the first change of a page after a checkpoint
    page_rows: float = 91
    checkpoint_s: float = 900

    # One server, and what one asks of it.
    database_cores: float = 16
    database_max_connections: float = 2000
    database_max_wal_mb: float = (
        100  # per second: what the disks, replicas and archive keep up with
    )
    database_max_gb: float = 1000  # what is restored within two hours at 150 MB/s
    replicas_max: int = 5
    read_lanes: int = 2
    round_trip_us: float = 500  # to the database and back, between zones
    commit_us: float = 2_000  # that a commit waits for a standby in another zone, and its disk
    pod_target: float = 0.7  # of what a pod asks for, at which the HPA adds another

    request_bytes: float = 700  # with the answer, heads and all


@dataclass(frozen=True)
class Plan:
    """What comes out: for one cell, and how many cells."""

    cells: int
    reason: str
    batch: float
    pods: int
    primary_cores: float
    replicas: int
    replica_cores: float
    primary_connections: int
    replica_connections: int
    storage_gb: float
    wal_mb: float
    traffic_mb: float

    @property
    def total_pods(self) -> int:
        return self.cells * self.pods

    @property
    def servers(self) -> int:
        """Of PostgreSQL: primaries, their standbys, and replicas."""
        return self.cells * (2 + self.replicas)


def simulate_lanes(
    rate: float, lanes: int, round_trip_us: float, statement_us: float, row_us: float, seed: int = 1
) -> tuple[float, float]:
    """Requests per statement, and mean µs until the answer, of one pod's lanes.

    `rate` requests per second arrive at random. A lane that is free takes everything that
    waits; its statement takes a round trip, and the database's time for itself and each row.
    """
    draw = random.Random(seed)
    free = [0.0] * lanes  # when each lane is free again, in µs
    waiting: list[float] = []
    statements = answered = 0
    waited = arrival = 0.0
    while answered < 5_000:
        arrival += draw.expovariate(rate / 1e6)
        lane = min(range(lanes), key=free.__getitem__)
        # Before this request comes, lanes that get free serve those who wait.
        while waiting and free[lane] <= arrival:
            start = max(free[lane], waiting[0])
            done = start + round_trip_us + statement_us + row_us * len(waiting)
            statements += 1
            answered += len(waiting)
            waited += sum(done - since for since in waiting)
            free[lane] = done
            waiting = []
            lane = min(range(lanes), key=free.__getitem__)
        waiting.append(arrival)
    return answered / statements, waited / answered


def wal_mb(a: Assumptions, users: float, writes: float) -> float:
    """MB/s of the write-ahead log for `writes` changes per second among `users`.

    The first change of a page after a checkpoint logs the whole page. Changes that are spread
    over a large table nearly all are the first of their page.
    """
    pages = max(1.0, users / a.page_rows)
    touched = pages * (1 - exp(-writes * a.checkpoint_s / pages))
    return (writes * a.wal_bytes + touched * a.image_bytes / a.checkpoint_s) / 1e6


def _cell(a: Assumptions, cells: int) -> Plan:
    requests, users = a.requests / cells, a.users / cells
    writes = requests * a.write_share
    gets = requests - writes
    reads = gets * (1 - a.hit_share)
    work = (gets * a.service_get_us + writes * a.service_put_us) * a.margin / 1e6
    pods = max(2, ceil(work / a.utilisation))

    batch, _ = simulate_lanes(
        max(1.0, reads / pods),
        READING,
        a.round_trip_us,
        a.statement_get_us * a.margin,
        a.row_get_us * a.margin,
    )
    write_batch, _ = simulate_lanes(
        max(1.0, writes / pods),
        1,
        a.round_trip_us + a.commit_us,
        a.statement_put_us * a.margin,
        a.row_put_us * a.margin,
    )
    saving = writes * (a.row_put_us + a.statement_put_us / write_batch) * a.margin / 1e6
    reading = reads * (a.row_get_us + a.statement_get_us / batch) * a.margin / 1e6
    fencing = reads / batch * a.fence_us * a.margin / 1e6
    capacity = a.database_cores * a.utilisation
    # A primary that can do it all needs no replica.
    replicas = 0 if saving + reading <= capacity else ceil(reading / capacity)
    return Plan(
        cells=cells,
        reason="",
        batch=batch,
        pods=pods,
        primary_cores=saving + (fencing if replicas else reading),
        replicas=replicas,
        replica_cores=reading / replicas if replicas else 0.0,
        primary_connections=pods * (a.read_lanes + 1),
        replica_connections=pods * a.read_lanes if replicas else 0,
        storage_gb=users * a.row_bytes / 1e9,
        wal_mb=wal_mb(a, users, writes),
        traffic_mb=requests * a.request_bytes / 1e6,
    )


def _excess(a: Assumptions, plan: Plan) -> str:
    """Which limit one cell exceeds; empty if none."""
    limits = {
        "work of the primary": (plan.primary_cores, a.database_cores * a.utilisation),
        "replicas": (plan.replicas, a.replicas_max),
        "connections": (
            max(plan.primary_connections, plan.replica_connections),
            a.database_max_connections,
        ),
        "storage": (plan.storage_gb, a.database_max_gb),
        "write-ahead log": (plan.wal_mb, a.database_max_wal_mb),
    }
    worst = max(limits, key=lambda name: limits[name][0] / limits[name][1])
    return worst if limits[worst][0] > limits[worst][1] else ""


def plan(a: Assumptions) -> Plan:
    """The fewest cells, doubled from one, of which each can be served; and what stops fewer.

    Doubled, since half of a cell's users then move out of it, and nobody else. Raises
    ValueError if thousands will not do.
    """
    reason = ""
    for doublings in range(14):
        candidate = _cell(a, 2**doublings)
        excess = _excess(a, candidate)
        if not excess:
            return replace(candidate, reason=reason)
        reason = excess
    raise ValueError(f"no number of cells will do, because of the {reason}")


def _number(value: float) -> str:
    if value == int(value) or value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}"


def _table(title: str, columns: list[tuple[str, Assumptions]]) -> list[str]:
    plans = [(name, a, plan(a)) for name, a in columns]
    rows: dict[str, Sequence[float | str]] = {
        "cells": [p.cells for _, _, p in plans],
        "what stops fewer": [p.reason or "nothing" for _, _, p in plans],
        "pods of one core, in all": [p.total_pods for _, _, p in plans],
        "pods of a cell": [p.pods for _, _, p in plans],
        "GETs for each statement": [p.batch for _, _, p in plans],
        "replicas of a cell": [p.replicas for _, _, p in plans],
        "cores at work, primary": [p.primary_cores for _, _, p in plans],
        "cores at work, each replica": [p.replica_cores or "" for _, _, p in plans],
        "connections, primary": [p.primary_connections for _, _, p in plans],
        "connections, each replica": [p.replica_connections or "" for _, _, p in plans],
        "storage of a cell, GB": [p.storage_gb for _, _, p in plans],
        "write-ahead log of a cell, MB/s": [p.wal_mb for _, _, p in plans],
        "servers of PostgreSQL, in all": [p.servers for _, _, p in plans],
    }
    lines = ["| " + " | ".join([title, *(name for name, _, _ in plans)]) + " |"]
    lines.append("| --- " + "| ---: " * len(plans) + "|")
    for name, values in rows.items():
        cells = [value if isinstance(value, str) else _number(value) for value in values]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return lines


def drivers(a: Assumptions) -> list[str]:
    """What the money goes to, as amounts: prices differ by region, contract and year."""
    p = plan(a)
    month = 30 * 86_400
    database_cores = p.servers * a.database_cores
    writes = a.requests * a.write_share
    rows = [
        ("cores for pods", f"{_number(ceil(p.total_pods / 0.8))}", "with 20 % for the nodes' own"),
        ("cores for PostgreSQL", _number(database_cores), "primaries, standbys, replicas"),
        (
            "storage of PostgreSQL, TB",
            _number(p.servers * p.storage_gb * 1.5 / 1000),
            "every copy, with half as much again to grow",
        ),
        (
            "log kept for 14 days, TB",
            _number(p.cells * p.wal_mb * 14 * 86_400 / 1e6),
            "before compression: mostly images of pages",
        ),
        (
            "through the load balancers, TB a month",
            _number(p.cells * p.traffic_mb * month / 1e6),
            "requests and answers",
        ),
        (
            "between zones, TB a month",
            _number(
                (p.cells * p.traffic_mb * 2 / 3 + p.cells * p.wal_mb * (1 + p.replicas))
                * month
                / 1e6
            ),
            "two thirds of the requests, and the log to each copy",
        ),
        ("changed dates a day, 1e9", _number(writes * 86_400 / 1e9), ""),
    ]
    lines = ["| what is paid for | amount | |", "| --- | ---: | --- |"]
    return lines + [f"| {name} | {amount} | {note} |" for name, amount, note in rows]


def lanes_table(a: Assumptions) -> list[str]:
    """What natural batching makes of a pod's requests."""
    lines = [
        "| GETs a second, one pod | GETs for each statement | µs of PostgreSQL for a GET | mean µs"
        " until the rows are there |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for rate in (100, 1_000, 3_000, 10_000, 20_000):
        batch, wait = simulate_lanes(
            rate, READING, a.round_trip_us, a.statement_get_us, a.row_get_us
        )
        cost = a.row_get_us + a.statement_get_us / batch
        lines.append(f"| {_number(rate)} | {batch:.1f} | {cost:.1f} | {_number(round(wait))} |")
    return lines


def commits_table(a: Assumptions) -> list[str]:
    """What a commit that waits for a standby makes of one pod's write lane."""
    commits = (0, 1_000, 2_000, 5_000, 10_000)
    lines = [
        "| "
        + " | ".join(
            ["PUTs a second, one pod", *(f"a commit waits {us // 1000} ms" for us in commits)]
        )
        + " |",
        "| ---: " * (len(commits) + 1) + "|",
    ]
    for rate in (10, 100, 1_000, 5_000):
        cells = [_number(rate)]
        for us in commits:
            batch, wait = simulate_lanes(
                *(rate, 1, a.round_trip_us + us, a.statement_put_us, a.row_put_us)
            )
            cells.append(f"{batch:.1f}, {wait / 1000:.1f} ms")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def pods_table(a: Assumptions) -> list[str]:
    """What pods of each size make of a load, at the HPA's target and one more than needed."""
    lines = [
        "| requests a second | a pod asks for | pods of a cell | all pods | GETs for each statement"
        " | cores of PostgreSQL for GETs | connections, primary of a cell |",
        "| ---: " * 7 + "|",
    ]
    for requests in (1e4, 1e5, 1e6):
        load = replace(a, requests=requests, users=1e3 * requests)
        cells = plan(load).cells
        writes = requests * a.write_share
        gets = requests - writes
        work = (gets * a.service_get_us + writes * a.service_put_us) * a.margin / 1e6
        for size in (0.25, 0.5, 1.0):
            pods = ceil(work / cells / (size * a.pod_target)) + 1
            batch, _ = simulate_lanes(
                gets / cells / pods,
                READING,
                a.round_trip_us,
                a.statement_get_us * a.margin,
                a.row_get_us * a.margin,
            )
            reading = gets * (a.row_get_us + a.statement_get_us / batch) * a.margin / 1e6
            row = [
                _number(requests),
                f"{1000 * size:.0f} m",
                _number(pods),
                _number(pods * cells),
                f"{batch:.1f}",
                f"{reading:.1f}",
                _number(pods * (a.read_lanes + 1)),
            ]
            lines.append("| " + " | ".join(row) + " |")
    return lines


def tables(a: Assumptions) -> dict[str, list[str]]:
    """The tables of docs/scaling.md, by the name of their place there."""
    loads = [
        ("1e6, 1e3/s", replace(a, users=1e6, requests=1e3)),
        ("1e7, 1e4/s", replace(a, users=1e7, requests=1e4)),
        ("1e8, 1e5/s", replace(a, users=1e8, requests=1e5)),
        (f"{a.users:.0e}, {a.requests:.0e}/s".replace("e+0", "e"), a),
    ]
    return {
        "lanes": lanes_table(a),
        "commits": commits_table(a),
        "pods": pods_table(a),
        "growth": _table("users, requests", loads),
        "margin": _table(
            "everything costs", [(f"{m} ×", replace(a, margin=m)) for m in (1, 2, 4, 8)]
        ),
        "writes": _table(
            "share of PUTs",
            [(f"{100 * s:g} %", replace(a, write_share=s)) for s in (0, 0.01, 0.05, 0.2)],
        ),
        "cache": _table(
            "GETs that the cache has",
            [(f"{100 * s:g} %", replace(a, hit_share=s)) for s in (0, 0.5, 0.9)],
        ),
        "drivers": drivers(a),
    }


def plot(a: Assumptions) -> str:
    """An SVG: pods, connections of a primary, and servers, against requests per second."""
    width, height, left, top, right, bottom = 900, 470, 70, 54, 240, 56
    rates = [10 ** (3 + step / 5) for step in range(21)]  # 1e3 to 1e7
    plans = [plan(replace(a, requests=rate, users=max(1e6, rate * 1e3))) for rate in rates]
    series = {
        "pods of one core": ("#1971c2", [p.total_pods for p in plans]),
        "connections of one primary": ("#e8590c", [p.primary_connections for p in plans]),
        "servers of PostgreSQL": ("#7048e8", [p.servers for p in plans]),
        "cells": ("#2f9e44", [p.cells for p in plans]),
    }
    top_power = ceil(log10(max(max(values) for _, values in series.values())))

    def x(rate: float) -> float:
        return left + (log10(rate) - 3) / 4 * (width - left - right)

    def y(value: float) -> float:
        return height - bottom - log10(max(value, 1)) / top_power * (height - top - bottom)

    font = "Inter, 'DejaVu Sans', Verdana, Helvetica, Arial, sans-serif"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img" font-family="{font}" font-size="14">',
        "<!-- by scripts/simulate_scale.py, with the option write -->",
        "<title>What a load needs, against requests per second</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{left}" y="28" font-size="16" font-weight="600" fill="#212529">What a load'
        f" needs: {100 * a.write_share:g} % PUTs, a thousand users for each request a"
        " second</text>",
    ]
    for power in range(top_power + 1):
        at = y(10**power)
        parts.append(
            f'<path d="M{left},{at:.1f} H{width - right}" stroke="#dee2e6"/>'
            f'<text x="{left - 8}" y="{at + 5:.1f}" text-anchor="end" fill="#495057">'
            f"{_number(10**power)}</text>"
        )
    for power in range(3, 8):
        at = x(10**power)
        parts.append(
            f'<path d="M{at:.1f},{top} V{height - bottom}" stroke="#dee2e6"/>'
            f'<text x="{at:.1f}" y="{height - bottom + 20}" text-anchor="middle" fill="#495057">'
            f"{_number(10**power)}</text>"
        )
    parts.append(
        f'<text x="{(left + width - right) / 2}" y="{height - 10}" text-anchor="middle"'
        ' fill="#212529">requests per second</text>'
    )
    labels = sorted(series, key=lambda name: -series[name][1][-1])
    below = 0.0
    for name in labels:
        color, values = series[name]
        points = " ".join(f"{x(r):.1f},{y(v):.1f}" for r, v in zip(rates, values, strict=True))
        at = below = max(below + 20, y(values[-1]) + 5)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2.6"'
            ' stroke-linejoin="round"/>'
            f'<text x="{width - right + 10}" y="{at:.1f}" fill="{color}" font-weight="600">'
            f"{name}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


def fill(text: str, found: dict[str, list[str]]) -> str:
    """A document with its tables replaced, between <!-- NAME --> and <!-- end -->."""
    for name, lines in found.items():
        around = re.split(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", text, flags=re.S)
        if len(around) != 2:
            raise ValueError(f"the document has {len(around) - 1} places for the table {name}")
        text = "\n".join([*lines, ""]).join(around)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description="How much of everything a load needs.")
    for field in fields(Assumptions):
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=field.default, metavar=f"{field.default:g}")
    parser.add_argument("--write", action="store_true", help="put it into docs/")
    options = vars(parser.parse_args())
    write = options.pop("write")
    for name in ("read_lanes", "replicas_max"):
        options[name] = int(options[name])
    assumptions = Assumptions(**options)
    found = tables(assumptions)
    if write:
        document = DOCS / "scaling.md"
        document.write_text(fill(document.read_text(), found))
        (DOCS / "scaling.svg").write_text(plot(assumptions))
        return 0
    for lines in found.values():
        print("\n".join([*lines, ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
