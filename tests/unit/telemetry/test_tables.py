"""The tables in docs/telemetry.md name what there is, and nothing else."""

import json
import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import falcon
import falcon.testing
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from hello.telemetry import logs, metrics
from hello.telemetry.exposition import create_admin_app
from hello.telemetry.metric_types import registry
from hello.traces import RequestSpans, TracedBatcher

PAGE = (Path(__file__).parents[3] / "docs/telemetry.md").read_text()


def table(heading: str) -> list[list[str]]:
    """The rows of the table below a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[2:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_metric_is_there_as_it_is_shown() -> None:
    rows = {names(row[0])[0]: (row[1], names(row[2]), row[3]) for row in table("Metrics")}
    app = create_admin_app(lambda: [(True, metrics.snapshot())], "cafe")
    shown = {}
    answer = falcon.testing.TestClient(app).simulate_get("/metrics")
    for family in text_string_to_metric_families(answer.text):
        # The parser leaves out what the text format adds to a counter's name.
        name = family.name + ("_total" if family.type == "counter" else "")
        if name in registry:
            labels = list(registry[name].label_names)
        else:
            labels = list(family.samples[0].labels)
        shown[name] = (family.type, labels, family.documentation)
    assert rows == shown


def test_every_field_of_the_log_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_formatter", logs.JSONFormatter())
    monkeypatch.setattr(logs, "_service", logs.service({"OTEL_SERVICE_NAME": "x"}))
    environ = {"hello.trace": ("a", "b"), "hello.request_id": "c"}
    access = json.loads(logs._access_line(environ, "GET", "200", 13, 0.1))
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "x", (), sys.exc_info())
    record.__dict__.update(dict.fromkeys(("request_id", "trace_id", "span_id"), "x"))
    defect = json.loads(logs.JSONFormatter().format(record))
    documented: dict[str, set[str]] = {}
    for row in table("The log"):
        for name in names(row[0]):
            documented[name] = set(re.findall("every line|access lines|defects", row[1]))
    assert {name for name, of in documented.items() if of != {"defects"}} == access.keys()
    assert {name for name, of in documented.items() if of != {"access lines"}} == defect.keys()


def _lane(batch: Mapping[str, Any], _deadline: float, /) -> Mapping[str, Any]:
    raise ZeroDivisionError


def test_every_attribute_of_a_span_is_there() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    options: dict[str, Any] = {
        "tracer": tracer,
        "database": "sqlite",
        "max_waiting": 10,
        "timeout": 5.0,
    }
    batcher: Any = TracedBatcher([_lane], kind="read", **options)

    class User:
        def on_get(self, _req: Any, resp: falcon.Response, username: str) -> None:
            with pytest.raises(ZeroDivisionError):
                batcher.submit(username, None)
            resp.status = 503

    app: Any = falcon.App(middleware=[RequestSpans(tracer)])
    app.add_route("/hello/{username}", User())
    falcon.testing.TestClient(app).simulate_get("/hello/Rumpelstilz")
    batch, request = exporter.get_finished_spans()
    assert (batch.name, request.name) == ("SELECT users", "GET /hello/{username}")
    assert request.attributes
    assert request.attributes["url.path"] == "/hello/REDACTED"
    assert "Rumpel" not in batch.to_json() + request.to_json()
    documented = {name for row in table("Traces") for name in names(row[0])}
    assert documented == {*(batch.attributes or ()), *request.attributes}
