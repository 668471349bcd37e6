import re
import shutil
import subprocess
from typing import Any

import falcon
import falcon.testing
import pytest
from prometheus_client.parser import text_string_to_metric_families

import hello
from hello.telemetry import metric_types, metrics
from hello.telemetry.exposition import create_admin_app
from hello.telemetry.metric_types import Counter, Gauge, Histogram, Metric, Snapshot


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Metric[Any]]:
    """What a test declares is forgotten."""
    monkeypatch.setattr(metric_types, "registry", dict(metric_types.registry))
    return metric_types.registry


def show(*workers: tuple[bool, Snapshot]) -> dict[str, dict[tuple, float]]:
    """What Prometheus makes of the figures of some workers: {sample: {label values: value}}."""
    app = create_admin_app(lambda: workers, "cafe")
    answer = falcon.testing.TestClient(app).simulate_get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: dict[str, dict[tuple, float]] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def figures(**rows: list[float]) -> Snapshot:
    return {name: {("x",): row} for name, row in rows.items()}


def test_counters_of_all_workers_are_added_and_gauges_of_those_that_live() -> None:
    Counter("events_total", "Events.", "kind")
    Gauge("now", "Now.", "kind")
    Gauge("worst", "Worst.", "kind", combine=max)
    dead = (False, figures(events_total=[10], now=[10], worst=[10]))
    first = (True, figures(events_total=[1], now=[1], worst=[1]))
    second = (True, figures(events_total=[2.5], now=[2], worst=[2]))
    shown = show(dead, first, second)
    assert shown["events_total"] == {("x",): 13.5}
    assert shown["now"] == {("x",): 3}
    assert shown["worst"] == {("x",): 2}
    assert shown["hello_workers"] == {(): 2}


def test_a_histogram_counts_what_is_at_most_the_bound() -> None:
    sizes = Histogram("sizes", "Sizes.", "kind", bounds=(1, 2, 4))
    for value in (0.5, 1, 2, 3, 4, 5):
        sizes.labels("x").observe(value)
    figures = metrics.snapshot()
    shown = show((True, figures), (True, figures))
    assert shown["sizes_bucket"] == {
        ("x", "1"): 4,
        ("x", "2"): 6,
        ("x", "4"): 10,
        ("x", "+Inf"): 12,
    }
    assert shown["sizes_count"] == {("x",): 12}
    assert shown["sizes_sum"] == {("x",): 31}


def test_values_of_labels_are_escaped() -> None:
    Counter("events_total", "Events.", "kind")
    name = 'a "quoted" \\ name\n'
    assert show((True, {"events_total": {(name,): [1]}}))["events_total"] == {(name,): 1}


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, of Prometheus")
def test_promtool_finds_nothing_to_blame() -> None:
    metrics.refused(400)
    metrics.STATEMENT_SECONDS.labels("primary", "find").observe(0.1)
    app = create_admin_app(lambda: [(True, metrics.snapshot())], "cafe")
    text = falcon.testing.TestClient(app).simulate_get("/metrics").text
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_build_is_shown() -> None:
    [(version, python, revision)] = show()["hello_build_info"]
    assert (version, revision) == (hello.__version__, "cafe")
    assert re.fullmatch(r"3\.\d+\.\d+\S*", python)


def test_nothing_but_metrics_is_on_the_admin_port() -> None:
    client = falcon.testing.TestClient(create_admin_app(list, "cafe"))
    assert client.simulate_get("/").status_code == 404
    assert client.simulate_head("/metrics").status_code == 200
    assert client.simulate_post("/metrics").status_code == 405
