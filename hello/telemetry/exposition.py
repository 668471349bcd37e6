"""The admin port's own application: the figures, as Prometheus reads them, and liveness."""

import platform
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import falcon

from hello import __version__
from hello.telemetry import metric_types
from hello.telemetry.metric_types import Gauge, Histogram, Labels, Metric, Row, Snapshot

#: The text format of Prometheus.
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """`/metrics`: the figures of all workers, as Prometheus reads them.

    `read` returns, for each worker that lives or lived, whether it lives and its figures.
    """

    def __init__(self, read: Callable[[], Iterable[tuple[bool, Snapshot]]], revision: str) -> None:
        self._read = read
        self._build = {
            "version": __version__,
            "python": platform.python_version(),
            "revision": revision,
        }

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = MEDIA_TYPE
        resp.text = "".join(self._lines())

    on_head = on_get

    def _lines(self) -> Iterator[str]:
        workers = list(self._read())
        for metric in metric_types.registry.values():
            yield from _header(metric.name, metric.documentation, metric.type_name)
            for labels, row in sorted(_combine(metric, workers).items()):
                yield from _samples(metric, labels, row)
        yield from _header("hello_workers", "Workers that answer requests.", "gauge")
        yield _sample("hello_workers", {}, sum(alive for alive, _ in workers))
        yield from _header("hello_build_info", "What is running; always 1.", "gauge")
        yield _sample("hello_build_info", self._build, 1)


class Live:
    """`/health/live`: the process answers, as on the service's own port."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = {"status": "live"}

    on_head = on_get


def create_admin_app(
    read: Callable[[], Iterable[tuple[bool, Snapshot]]], revision: str
) -> "falcon.App[falcon.Request, falcon.Response]":
    """See `Metrics` for `read`; `revision` is the commit that runs."""
    # `falcon.App` is looked up here: whoever instruments Falcon puts a class there that is not
    # generic.
    app: falcon.App[falcon.Request, falcon.Response] = falcon.App()
    app.add_route("/metrics", Metrics(read, revision))
    app.add_route("/health/live", Live())
    return app


def _combine(metric: Metric[Any], workers: Iterable[tuple[bool, Snapshot]]) -> dict[Labels, Row]:
    """The rows of one metric for all workers together."""
    found: dict[Labels, list[Row]] = {}
    for alive, figures in workers:
        if alive or not isinstance(metric, Gauge):
            for labels, row in figures.get(metric.name, {}).items():
                found.setdefault(labels, []).append(row)
    return {
        labels: [metric.combine(values) for values in zip(*rows, strict=True)]
        for labels, rows in found.items()
    }


def _header(name: str, documentation: str, type_name: str) -> Iterator[str]:
    yield f"# HELP {name} {documentation}\n# TYPE {name} {type_name}\n"


def _samples(metric: Metric[Any], labels: Labels, row: Row) -> Iterator[str]:
    names = dict(zip(metric.label_names, labels, strict=True))
    if not isinstance(metric, Histogram):
        yield _sample(metric.name, names, row[0])
        return
    total = 0.0
    for bound, value in zip([*metric.bounds, "+Inf"], row, strict=False):
        total += value
        yield _sample(f"{metric.name}_bucket", names | {"le": str(bound)}, total)
    yield _sample(f"{metric.name}_sum", names, row[-1])
    yield _sample(f"{metric.name}_count", names, total)


def _sample(name: str, labels: dict[str, str], value: float) -> str:
    text = ",".join(f'{label}="{_escape(value)}"' for label, value in labels.items())
    number = int(value) if float(value).is_integer() else value
    return f"{name}{{{text}}} {number}\n" if text else f"{name} {number}\n"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
