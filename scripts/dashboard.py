"""`python scripts/dashboard.py [--prometheus URL] [OUTPUT]`: draw the dashboard's main panels.

With a URL, of what that Prometheus has seen in the last minutes. Without, the service is
started with two workers, a primary, a replica and a cache, asked for two minutes while some
of these fail, and watched by a Prometheus of its own: that picture is docs/dashboard.svg.
Needs matplotlib, and in the second case what the tests need, and Prometheus.
"""

import argparse
import json
import math
import random
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support import monitoring  # noqa: E402

#: Titles of panels of manifests/monitoring/dashboard.json, what their values are multiplied
#: with, and the unit that they have then.
PANELS = [
    ("Requests by route, method and status", 1, "requests/s"),
    ("GET latency", 1000, "ms"),
    ("PUT latency", 1000, "ms"),
    ("Batch size", 1, "keys"),
    ("Cache hits", 100, "% of look-ups"),
    ("Fences", 1, "batches/s"),
]
#: Seconds that a rate is taken over.
WINDOW = 5

Line = tuple[str, list[float], list[float]]
Span = tuple[float, float, str]


def fetch(prometheus: str, title: str, start: float, end: float) -> Iterator[Line]:
    """Each line of a panel: its legend, seconds since `start`, and values."""
    [panel] = [panel for panel in monitoring.dashboard()["panels"] if panel["title"] == title]
    for target in panel["targets"]:
        expr = target["expr"].replace("$namespace", ".*")
        expr = expr.replace("$__rate_interval", f"{WINDOW}s")
        query = {"query": expr, "start": start, "end": end, "step": 1}
        url = f"{prometheus}/api/v1/query_range?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=60) as response:
            series = json.load(response)["data"]["result"]
        for one in series:
            legend = target["legendFormat"]
            for label, value in one["metric"].items():
                legend = legend.replace(f"{{{{{label}}}}}", value)
            times = [float(at) - start for at, _ in one["values"]]
            yield legend, times, [float(value) for _, value in one["values"]]


def draw(prometheus: str, start: float, end: float, spans: list[Span], output: Path) -> None:
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "hello", "font.size": 9})
    figure, axes = plt.subplots(3, 2, figsize=(11, 9), sharex=True, layout="constrained")
    for axis, (title, factor, unit) in zip(axes.flat, PANELS, strict=True):
        for legend, times, values in fetch(prometheus, title, start, end):
            scaled = [value * factor for value in values]
            shown = any(value > 0 for value in scaled if not math.isnan(value))
            if not shown or "/health" in legend:
                continue
            axis.plot(times, scaled, label=legend.replace("/hello/{username} ", ""), linewidth=1.2)
        for begin, until, _ in spans:
            axis.axvspan(begin - start, until - start, color="0.5", alpha=0.15, linewidth=0)
        title = title.replace("by route, method", "by method")
        axis.set_title(title, loc="left", weight="bold", pad=14)  # room for what happened
        axis.set_ylabel(unit)
        axis.set_xlim(0, end - start)
        axis.set_ylim(bottom=0, top=axis.get_ylim()[1] * 1.3)  # room for the legend
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(loc="upper left", ncols=2, fontsize=7, framealpha=0.8)
    for axis in axes[-1]:
        axis.set_xlabel(f"seconds; each value is that of the {WINDOW} s before")
    for axis in axes[0]:
        top = axis.get_ylim()[1]
        for begin, until, what in spans:
            middle = (begin + until) / 2 - start
            axis.text(middle, top, what, ha="center", va="bottom", fontsize=7)
    figure.savefig(output, metadata={"Date": None})


@contextmanager
def span(spans: list[Span], what: str) -> Iterator[None]:
    begin = time.time()
    yield
    spans.append((begin, time.time(), what))


def run(output: Path) -> None:
    """Make something to draw."""
    from tests.support.processes import eventually, free_port
    from tests.support.prometheus import Prometheus
    from tests.support.service import Client, load
    from tests.support.stack import Stack

    users = 2000

    def ask(client: Client, _number: int) -> None:
        """Nine look-ups, of which some users are looked up more than others, and a change."""
        try:
            for _ in range(9):
                client.get(f"user-{int(users * random.random() ** 3)}")
            born = date.fromordinal(date(1950, 1, 1).toordinal() + random.randrange(20000))
            client.put(f"user-{random.randrange(users)}", str(born))
        except OSError:
            client.close()

    admin = free_port()
    spans: list[Span] = []
    with (
        Stack(replicas=1, cache=True) as stack,
        stack.service(WEB_CONCURRENCY="2", ADMIN_PORT=str(admin), CACHE_TTL="5") as service,
        Prometheus([admin], monitoring.rules_spec()) as prometheus,
    ):
        prometheus.wait_until()
        eventually(lambda: prometheus.query("up == 1"), within=30)
        with service.client() as client:
            for n in range(users):
                client.put(f"user-{n}", "1990-05-17")
        start = time.time() + WINDOW
        with load(service, 4, ask):
            time.sleep(30)
        with load(service, 32, ask):
            time.sleep(20)
            with span(spans, "cache killed"), stack.cache_killed():
                time.sleep(15)
            time.sleep(10)
            with span(spans, "replica paused"), stack.replica_paused():
                time.sleep(15)
            time.sleep(10)
            with span(spans, "primary killed"), stack.primary_killed():
                time.sleep(10)
            time.sleep(15)
        draw(f"http://127.0.0.1:{prometheus.port}", start, time.time() - 1, spans, output)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the dashboard's main panels.")
    parser.add_argument("--prometheus", metavar="URL", help="draw what this one has seen")
    parser.add_argument("--minutes", type=float, default=10, help="with --prometheus (10)")
    default = ROOT / "docs" / "dashboard.svg"
    parser.add_argument("output", nargs="?", type=Path, default=default, help="an SVG file")
    options = parser.parse_args()
    if options.prometheus:
        end = time.time()
        draw(options.prometheus.rstrip("/"), end - options.minutes * 60, end, [], options.output)
    else:
        run(options.output)
    print(options.output)


if __name__ == "__main__":
    main()
