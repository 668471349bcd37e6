"""What this process has counted and measured: plain numbers, since every request pays for them.

`hello.telemetry.shared` shares them between workers, and `hello.telemetry.exposition` shows them.

A metric holds a row of numbers for each combination of its labels: one number for a counter
and a gauge; for a histogram how many values fell into each bucket, and at the end their sum.
Labels come from this code and from settings' names alone, never from a client: there is no
username and no date among them, and no more rows than can be counted.
"""

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

Labels = tuple[str, ...]
Row = list[float]
#: The rows of every metric, by its name.
Snapshot = dict[str, dict[Labels, Row]]

#: Upper bounds, inclusive, in seconds.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Upper bounds, inclusive, in keys.
KEYS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

OTHER = "other"
METHODS = frozenset(("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE"))

#: Every metric, by its name, in the order in which they are shown.
metrics: dict[str, "Metric"] = {}


class Metric:
    """`combine` says what the figures of several workers make: their sum, or the greatest."""

    type = ""
    combine: Callable[[Sequence[float]], float] = sum

    def __init__(self, name: str, help: str, *labels: str) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self.rows: dict[Labels, Row] = {}
        metrics[name] = self

    def row(self, labels: Labels) -> Row:
        """The row of these labels, for good: it may be kept."""
        row = self.rows.get(labels)
        if row is None:
            row = self.rows[labels] = self._new()
        return row

    def _new(self) -> Row:
        return [0]


class Counter(Metric):
    """`start` are labels that are shown before the first event, so that a rate sees it."""

    type = "counter"

    def __init__(self, name: str, help: str, *labels: str, start: Sequence[Labels] = ()) -> None:
        super().__init__(name, help, *labels)
        for combination in start or ([()] if not labels else []):
            self.row(combination)

    def add(self, *labels: str, by: float = 1) -> None:
        self.row(labels)[0] += by


class Histogram(Metric):
    type = "histogram"

    def __init__(self, name: str, help: str, *labels: str, bounds: Sequence[float]) -> None:
        super().__init__(name, help, *labels)
        self.bounds = bounds

    def observe(self, labels: Labels, value: float) -> None:
        row = self.row(labels)
        row[bisect_left(self.bounds, value)] += 1
        row[-1] += value

    def into(self, labels: Labels) -> Callable[[float], None]:
        """What observes values of these labels, for who does it often: to be kept."""
        row, bounds = self.row(labels), self.bounds

        def observe(value: float) -> None:
            row[bisect_left(bounds, value)] += 1
            row[-1] += value

        return observe

    def _new(self) -> Row:
        return [0] * (len(self.bounds) + 2)  # one beyond the last bound, and the sum


class Gauge(Metric):
    """A figure of now: set, or asked for by `watch`. Of a worker that is gone nothing is left."""

    type = "gauge"

    def __init__(
        self, name: str, help: str, *labels: str, combine: Callable[[Sequence[float]], float] = sum
    ) -> None:
        super().__init__(name, help, *labels)
        self.combine = combine
        self._read: dict[Labels, Callable[[], float]] = {}

    def set(self, labels: Labels, value: float) -> None:
        self.row(labels)[0] = value

    def watch(self, labels: Labels, read: Callable[[], float]) -> None:
        """Ask `read` whenever the figure is wanted."""
        self._read[labels] = read

    def refresh(self) -> None:
        for labels, read in self._read.items():
            self.set(labels, float(read()))


REQUESTS = Counter(
    "hello_http_requests_total",
    "Requests answered, by route template, method and status.",
    *("route", "method", "status"),
)
REQUEST_SECONDS = Histogram(
    "hello_http_request_duration_seconds",
    "Seconds from the moment that a request is read until its answer is sent.",
    *("route", "method"),
    bounds=SECONDS,
)
BATCH_SIZE = Histogram("hello_batch_size", "Keys that shared one statement.", "kind", bounds=KEYS)
STATEMENT_SECONDS = Histogram(
    "hello_statement_duration_seconds",
    "Seconds for one statement, failed ones included.",
    *("database", "statement"),
    bounds=SECONDS,
)
WAITING = Gauge("hello_waiting_requests", "Requests that wait for a statement now.", "kind")
RETRIES = Counter(
    "hello_statement_retries_total",
    "Statements tried once more on a new connection, since the old one broke.",
    "database",
    start=[("primary",), ("replica",), ("cache",)],
)
SPLITS = Counter(
    "hello_batches_split_total",
    "Batches run key by key, since the database refused a value.",
    "kind",
    start=[("read",), ("write",)],
)
_KINDS = [("read",), ("write",), ("cache",)]
SHED = Counter(
    "hello_requests_shed_total",
    "Requests answered 503 at once, since too many waited.",
    "kind",
    start=_KINDS,
)
DEADLINES = Counter(
    "hello_deadlines_exceeded_total",
    "Requests answered 503, since their time was up while they waited for a statement.",
    "kind",
    start=_KINDS,
)
FENCES = Counter(
    "hello_fences_total",
    "Batches read from a replica: it was fresh (passed), behind (lagging), did not answer"
    " (failed), follows another primary (foreign), or the primary was away (unfenced).",
    "outcome",
    start=[("passed",), ("lagging",), ("failed",), ("foreign",), ("unfenced",)],
)
POLLS = Counter("hello_fence_polls_total", "Times that a replica behind the fence was asked again.")
PRIMARY_READS = Counter(
    "hello_primary_reads_total",
    "Batches that the primary read although there are replicas.",
)
STALE = Counter("hello_stale_answers_total", "Answers that say that they may be stale.")
LOOKUPS = Counter(
    "hello_cache_lookups_total",
    "Users looked up in the cache.",
    "result",
    start=[("hit",), ("miss",)],
)
CACHE_FAILURES = Counter(
    "hello_cache_failures_total", "Operations that the cache did not carry out in time."
)
SUSPENSIONS = Counter(
    "hello_cache_suspensions_total",
    "Times that reading from the cache was suspended, since it may hold old values.",
)
SUSPENDED = Gauge(
    "hello_cache_suspended",
    "1 while some worker knows that nobody may read from the cache, else 0.",
    combine=max,
)
BREAKERS = Gauge(
    "hello_breaker_open",
    "1 while a dependency is left alone by some worker, since it failed, else 0.",
    "dependency",
    combine=max,
)
LAG = Gauge(
    "hello_replica_lag_bytes",
    "Bytes of the log that a replica was behind when it was last asked.",
    "replica",
    combine=max,
)
CONNECTIONS = Gauge("hello_connections", "Connections of clients that are open now.")
GIVEN_WAY = Counter(
    "hello_connections_given_way_total",
    "Connections closed to make room for others, since they had waited longest for their client.",
)
DRAINING = Gauge(
    "hello_draining", "1 while some worker finishes its last requests, else 0.", combine=max
)
CPU = Counter(
    "hello_process_cpu_seconds_total",
    "Seconds of processor time that the workers have used, those that are gone included.",
)
MEMORY = Gauge("hello_process_resident_memory_bytes", "Resident memory of all workers.")
FDS = Gauge("hello_process_open_fds", "File descriptors that the workers have open.")

_EVENTS: dict[str, tuple[Counter, Labels]] = {
    "cache_failures": (CACHE_FAILURES, ()),
    "cache_hits": (LOOKUPS, ("hit",)),
    "cache_misses": (LOOKUPS, ("miss",)),
    "cache_retries": (RETRIES, ("cache",)),
    "cache_suspensions": (SUSPENSIONS, ()),
    "primary_reads": (PRIMARY_READS, ()),
    "replica_failures": (FENCES, ("failed",)),
    "replica_foreign": (FENCES, ("foreign",)),
    "replica_lagging": (FENCES, ("lagging",)),
    "replica_polls": (POLLS, ()),
    "replica_reads": (FENCES, ("passed",)),
    "replica_unfenced": (FENCES, ("unfenced",)),
    "stale_answers": (STALE, ()),
}
#: The row of each event.
events = {event: counter.row(labels) for event, (counter, labels) in _EVENTS.items()}


def count(event: str, by: int = 1) -> None:
    """Count something that happens in one place; see _EVENTS."""
    events[event][0] += by


_request_rows: dict[tuple[str | None, str, str], tuple[Row, Row]] = {}


def answered(environ: Mapping[str, Any], status: str, seconds: float) -> None:
    """Count a request, from its WSGI environment; see `hello.middleware.CommonHeaders`."""
    route, method = environ.get("hello.route"), environ["REQUEST_METHOD"]
    try:
        count, durations = _request_rows[route, method, status]
    except KeyError:
        count, durations = _request(route, method, status)
    count[0] += 1
    durations[bisect_left(SECONDS, seconds)] += 1
    durations[-1] += seconds


def _request(template: str | None, method: str, status: str) -> tuple[Row, Row]:
    route = template or OTHER
    label = method if method in METHODS else OTHER
    rows = REQUESTS.row((route, label, status[:3])), REQUEST_SECONDS.row((route, label))
    if label is not OTHER:  # clients can invent any number of methods
        _request_rows[template, method, status] = rows
    return rows


def refused(status: int) -> None:
    """Count a request that the server refused before the application saw it."""
    REQUESTS.add(OTHER, OTHER, str(status))


class timed:
    """Measures a statement: `with timed("cache", "claim"): …`."""

    __slots__ = ("_labels", "_start")

    def __init__(self, database: str, statement: str) -> None:
        self._labels = (database, statement)

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        STATEMENT_SECONDS.observe(self._labels, time.monotonic() - self._start)


_cpu_seen = 0.0


def _look_at_process() -> None:
    global _cpu_seen
    now = time.process_time()
    # A fork begins again at 0.
    CPU.add(by=now - _cpu_seen if now >= _cpu_seen else now)
    _cpu_seen = now
    with suppress(OSError):  # only Linux has them
        with open("/proc/self/statm") as file:
            MEMORY.set((), int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        FDS.set((), len(os.listdir("/proc/self/fd")))


def snapshot() -> Snapshot:
    """All figures of this process, as they are now."""
    _look_at_process()
    for metric in metrics.values():
        if isinstance(metric, Gauge):
            metric.refresh()
    return {name: metric.rows for name, metric in metrics.items()}


def restore(past: Mapping[str, Mapping[Labels, Row]]) -> None:
    """Go on from the figures of a process that is gone: what only grows, grows on."""
    for name, rows in past.items():
        metric = metrics.get(name)
        if metric is None or isinstance(metric, Gauge):
            continue
        for labels, values in rows.items():
            row = metric.row(labels)
            for i, value in enumerate(values):
                row[i] += value
