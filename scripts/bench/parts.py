"""What parts that are made by hand cost beside the libraries that could do the same.

After `make bench`,

    PYTHONPATH=$(echo .bench-venv/lib/python3*/site-packages) \\
        .venv/bin/python -m scripts.bench.parts

prints CPU for one event, in microseconds: the least of several rounds, in which they take turns.
docs/decisions/own-parts.md says what came of it.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, TextIO

import msgspec
import psycopg
import psycopg2
import structlog
from gunicorn.config import Config

from hello.telemetry import logs, metric_types
from hello.telemetry.metrics import SECONDS
from tests.support.postgres import Cluster

ROUNDS = 7
LABELS = ("route", "method", "status")
VALUES = ("/hello/{username}", "GET", "200")
FILL = "INSERT INTO users SELECT 'user' || n, '1990-05-17' FROM generate_series(1, 1000) AS n"
STATEMENT = "SELECT date_of_birth FROM users WHERE username = %s"

Event = Callable[[], object]


def counting(files: str) -> dict[str, Event]:
    """A counter and a histogram, their series found by the labels of a request.

    The library keeps its `files` in a directory: it counts for several processes then.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = files
    # It looks for the directory while it is imported.
    import prometheus_client

    counter = metric_types.Counter("trial", "A counter.", *LABELS)
    histogram = metric_types.Histogram("trial_seconds", "A histogram.", *LABELS, bounds=SECONDS)
    their_counter = prometheus_client.Counter("trial", "A counter.", LABELS)
    their_histogram = prometheus_client.Histogram(
        "trial_seconds", "A histogram.", LABELS, buckets=SECONDS
    )
    kept = their_counter.labels(*VALUES), their_histogram.labels(*VALUES)

    def here() -> None:
        counter.labels(*VALUES).inc()
        histogram.labels(*VALUES).observe(0.003)

    def library() -> None:
        their_counter.labels(*VALUES).inc()
        their_histogram.labels(*VALUES).observe(0.003)

    def library_kept() -> None:
        kept[0].inc()
        kept[1].observe(0.003)

    name = f"prometheus-client {version('prometheus-client')}, several processes"
    return {"here": here, name: library, f"{name}, series kept": library_kept}


def access_line(nowhere: TextIO) -> dict[str, Event]:
    """One line of JSON about a request, written `nowhere`."""
    logs.configure("json", "info")
    config = Config()
    config.set("accesslog", "-")
    logger = logs.Logger(config)
    for handler in logger.access_log.handlers:
        handler.setStream(nowhere)
    environ = {
        "REQUEST_METHOD": "GET",
        "hello.route": VALUES[0],
        "hello.request_id": "0f4c8f0e9a7b4d0f8f3b6a52d1c4e7f9",
    }
    fields = {
        "method": "GET",
        "route": VALUES[0],
        "status": 200,
        "duration_ms": 3.14,
        "bytes": 60,
        "request_id": environ["hello.request_id"],
        "pid": os.getpid(),
    }

    def encode(document: Any, **_: object) -> bytes:
        return msgspec.json.encode(document)

    stamps: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    fastest = structlog.wrap_logger(
        structlog.BytesLogger(nowhere.buffer),
        processors=[*stamps, structlog.processors.JSONRenderer(encode)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    ).bind()
    standard = logging.Logger("access")
    standard.addHandler(logging.StreamHandler(nowhere))
    usual = structlog.wrap_logger(
        standard,
        processors=[*stamps, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.stdlib.BoundLogger,
    ).bind()

    name = f"structlog {version('structlog')}"
    message = "GET 200 /hello/{username}"
    return {
        "here": lambda: logger.answered(environ, "200 OK", 60, 0.00314),
        f"{name}, straight to a file, JSON by msgspec": lambda: fastest.info(message, **fields),
        f"{name}, by way of logging": lambda: usual.info(message, **fields),
    }


@contextmanager
def statement() -> Iterator[dict[str, Event]]:
    """One row by its key over a Unix socket; the CPU is the client's alone."""
    cluster = Cluster().create()
    cluster.start()
    try:
        cluster.query("CREATE TABLE users (username text PRIMARY KEY, date_of_birth date)")
        cluster.query(FILL)
        two = psycopg2.connect(cluster.uri())
        two.autocommit = True
        three = psycopg.connect(cluster.uri(), autocommit=True)
        cursor = two.cursor()
        cursor.execute("PREPARE find(text) AS " + STATEMENT.replace("%s", "$1"))
        of_three = three.cursor()

        def ours() -> object:
            cursor.execute("EXECUTE find(%s)", ("user7",))
            return cursor.fetchone()

        def library() -> object:
            return of_three.execute(STATEMENT, ("user7",)).fetchone()

        assert ours() == library()
        name = f"psycopg {version('psycopg')}, compiled, prepares by itself"
        yield {f"psycopg2 {version('psycopg2-binary')}": ours, name: library}
        two.close()
        three.close()
    finally:
        cluster.destroy()


def compare(what: str, events: dict[str, Event], times: int) -> None:
    least = dict.fromkeys(events, float("inf"))
    for _ in range(ROUNDS):
        for name, event in events.items():
            event()
            began = time.process_time()
            for _ in range(times):
                event()
            least[name] = min(least[name], (time.process_time() - began) / times * 1e6)
    print(what)
    for name, microseconds in least.items():
        print(f"    {microseconds:6.2f} µs  {name}")


def main() -> None:
    with tempfile.TemporaryDirectory() as files:
        compare("a counter and a histogram", counting(files), 50_000)
    with open(os.devnull, "w") as nowhere:
        compare("an access line", access_line(nowhere), 20_000)
    with statement() as drivers:
        compare("a statement", drivers, 5_000)


if __name__ == "__main__":
    main()
