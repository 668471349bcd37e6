"""Every metric of the service.

Constants are series, ready to count, or a metric whose labels are known only where it is counted.
Their rows are shared between workers by `hello.telemetry.shared` and shown by
`hello.telemetry.exposition`.
"""

import os
import resource
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from hello.telemetry import metric_types
from hello.telemetry.metric_types import (
    Counter,
    CounterSeries,
    Gauge,
    Histogram,
    HistogramSeries,
    Snapshot,
)
from hello.telemetry.names import METHODS, OTHER

#: Upper bounds of buckets, inclusive, in seconds.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Upper bounds of buckets, inclusive, in keys.
KEYS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

#: The route that the objectives are about (docs/slo.md).
_USER = "/hello/{username}"
#: What it answers often, and what must not be missed when it happens once.
_STATUSES = {
    "GET": ("200", "404", "500", "503"),
    "HEAD": ("200", "404", "500", "503"),
    "PUT": ("204", "400", "500", "503"),
}

REQUESTS = Counter(
    "hello_http_requests_total",
    "Requests answered, by route template, method and status.",
    *("route", "method", "status"),
    start=[(_USER, method, status) for method in _STATUSES for status in _STATUSES[method]],
)
REQUEST_SECONDS = Histogram(
    "hello_http_request_duration_seconds",
    "Seconds from the moment that a request is read until its answer is sent.",
    # A class, not the status: a histogram's series is a row of 16 numbers.
    *("route", "method", "status_class"),
    bounds=SECONDS,
    start=[
        (_USER, method, status_class)
        for method in _STATUSES
        for status_class in ("2xx", "4xx", "5xx")
    ],
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
_SPLITS = Counter(
    "hello_batches_split_total",
    "Batches run key by key, since the database refused a value.",
    "kind",
)
READ_SPLITS, WRITE_SPLITS = _SPLITS.labels("read"), _SPLITS.labels("write")
_BATCHERS = [("read",), ("write",), ("cache",)]
SHED = Counter(
    "hello_requests_shed_total",
    "Requests answered 503 at once, since too many waited.",
    "kind",
    start=_BATCHERS,
)
DEADLINES = Counter(
    "hello_deadlines_exceeded_total",
    "Requests answered 503, since their time was up while they waited for a statement.",
    "kind",
    start=_BATCHERS,
)
_FENCES = Counter(
    "hello_fences_total",
    "Batches read from a replica: it was fresh (passed), behind (lagging), did not answer"
    " (failed), follows another primary (foreign), or the primary was away (unfenced).",
    "outcome",
)
FENCE_PASSED = _FENCES.labels("passed")
FENCE_LAGGING = _FENCES.labels("lagging")
FENCE_FAILED = _FENCES.labels("failed")
FENCE_FOREIGN = _FENCES.labels("foreign")
FENCE_UNFENCED = _FENCES.labels("unfenced")
FENCE_POLLS = Counter(
    "hello_fence_polls_total", "Times that a replica behind the fence was asked again."
).labels()
PRIMARY_READS = Counter(
    "hello_primary_reads_total",
    "Batches that the primary read although there are replicas.",
).labels()
STALE_ANSWERS = Counter(
    "hello_stale_answers_total", "Answers that say that they may be stale."
).labels()
_CACHE_LOOKUPS = Counter("hello_cache_lookups_total", "Users looked up in the cache.", "result")
CACHE_HITS, CACHE_MISSES = _CACHE_LOOKUPS.labels("hit"), _CACHE_LOOKUPS.labels("miss")
CACHE_FAILURES = Counter(
    "hello_cache_failures_total", "Operations that the cache did not carry out in time."
).labels()
CACHE_SUSPENSIONS = Counter(
    "hello_cache_suspensions_total",
    "Times that reading from the cache was suspended, since it may hold old values.",
).labels()
CACHE_SUSPENDED = Gauge(
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
).labels()
DRAINING = Gauge(
    "hello_draining", "1 while some worker finishes its last requests, else 0.", combine=max
)
CPU = Counter(
    "hello_process_cpu_seconds_total",
    "Seconds of processor time that the workers have used, those that are gone included.",
).labels()
MEMORY = Gauge("hello_process_resident_memory_bytes", "Resident memory of all workers.")
FDS = Gauge("hello_process_open_fds", "File descriptors that the workers have open.")
MAX_FDS = Gauge("hello_process_max_fds", "File descriptors that the workers may have open.")
STARTED = Gauge(
    "hello_process_start_time_seconds",
    "Unix time at which the youngest worker started.",
    combine=max,
)

_request_series: dict[tuple[str | None, str, str], tuple[CounterSeries, HistogramSeries]] = {}


def answered(environ: Mapping[str, Any], status: str, seconds: float) -> None:
    """Count a request, from its WSGI environment; see `hello.middleware.CommonHeaders`."""
    route, method = environ.get("hello.route"), environ["REQUEST_METHOD"]
    try:
        requests, durations = _request_series[route, method, status]
    except KeyError:
        requests, durations = _request(route, method, status)
    requests.inc()
    durations.observe(seconds)


def _request(
    uri_template: str | None, method: str, status: str
) -> tuple[CounterSeries, HistogramSeries]:
    route = uri_template or OTHER
    label = method if method in METHODS else OTHER
    series = (
        REQUESTS.labels(route, label, status[:3]),
        REQUEST_SECONDS.labels(route, label, f"{status[0]}xx"),
    )
    if label is not OTHER:  # clients can invent any number of methods
        _request_series[uri_template, method, status] = series
    return series


def refused(status: int) -> None:
    """Count a request that the server refused before the application saw it."""
    REQUESTS.labels(OTHER, OTHER, str(status)).inc()


_cpu_seen = 0.0


@lru_cache(maxsize=1)
def _started(pid: int) -> float:
    """When a process started, by the kernel: this module may be older, since workers are forked."""
    with open(f"/proc/{pid}/stat") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])  # field 22, see proc_pid_stat(5)
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + ticks / os.sysconf("SC_CLK_TCK")


def snapshot() -> Snapshot:
    """All figures of this process, as they are now."""
    global _cpu_seen
    now = time.process_time()
    # The processor time of a forked process begins at 0.
    CPU.inc(now - _cpu_seen if now >= _cpu_seen else now)
    _cpu_seen = now
    with suppress(OSError):  # only Linux has these files
        with open("/proc/self/statm") as file:
            MEMORY.labels().set(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        FDS.labels().set(len(os.listdir("/proc/self/fd")))
        STARTED.labels().set(_started(os.getpid()))
    if (limit := resource.getrlimit(resource.RLIMIT_NOFILE)[0]) != resource.RLIM_INFINITY:
        MAX_FDS.labels().set(limit)
    return metric_types.snapshot()
