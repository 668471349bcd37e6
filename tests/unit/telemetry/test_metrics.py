"""The metrics are what operators' dashboards and alerts rest on: names and labels stay."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import hello.app
from hello.telemetry import metrics

ROOT = Path(__file__).parents[3]

#: Of a process in which nothing has happened yet. Whoever adds a metric adds it here.
EXPECTED = Path(__file__).with_name("metrics.txt")

ROUTE = "/hello/{username}"

_SHOW = """
from hello.telemetry import metric_types, metrics

metrics.snapshot()
for metric in metric_types.registry.values():
    bounds = getattr(metric, "bounds", None)
    between = f" {bounds[0]} to {bounds[-1]}" if bounds else ""
    print(f"{metric.type_name} {metric.name}{{{', '.join(metric.label_names)}}}{between}")
    print(f"    {metric.documentation}")
    for values in sorted(metric.rows):
        print("    shown from the start:", ", ".join(values) or "itself")
"""


def test_every_metric_has_the_name_and_the_labels_that_are_known() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SHOW],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == EXPECTED.read_text()


def test_every_metric_is_counted_somewhere() -> None:
    here = {
        name
        for name, value in vars(metrics).items()
        if name.isupper() and type(value).__module__ == "hello.telemetry.metric_types"
    }
    assert len(here) > 20
    code = "".join(file.read_text() for file in (ROOT / "hello").rglob("*.py"))
    # Outside of the module by its name; inside of it, it is declared once, and used after that.
    unused = {name for name in here if len(re.findall(rf"\b{name}\b", code)) < 2}
    assert unused == set()


_FIRST = """
import json, sys
from hello.telemetry import metrics

before = metrics.snapshot()["hello_http_requests_total"]
for method in ("GET", "HEAD", "PUT"):
    for status in ("500 Internal Server Error", "503 Service Unavailable"):
        environ = {"REQUEST_METHOD": method, "hello.route": "/hello/{username}"}
        metrics.answered(environ, status, 0.1)
after = metrics.snapshot()["hello_http_requests_total"]
changed = sorted(labels for labels, row in after.items() if row[0] != 0)
print(json.dumps([[labels, labels in before, after[labels][0]] for labels in changed]))
"""


def test_the_first_failure_of_a_process_is_a_step_up_from_0() -> None:
    # Prometheus sees no step in a series that begins at 1.
    done = subprocess.run(
        [sys.executable, "-c", _FIRST],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [
        [["/hello/{username}", method, status], True, 1]
        for method in ("GET", "HEAD", "PUT")
        for status in ("500", "503")
    ]


def test_durations_are_told_apart_by_the_class_of_the_status() -> None:
    environ = {"REQUEST_METHOD": "GET", "hello.route": ROUTE}

    def counted() -> dict[str, float]:
        rows = metrics.REQUEST_SECONDS.rows.items()
        return {labels[2]: sum(row[:-1]) for labels, row in rows if labels[:2] == (ROUTE, "GET")}

    before = counted()
    for status in ("200 OK", "404 Not Found", "400 Bad Request", "503 Service Unavailable"):
        metrics.answered(environ, status, 0.1)
    after = counted()
    assert {name: after[name] - before[name] for name in after} == {"2xx": 1, "4xx": 2, "5xx": 1}


def test_the_route_of_the_objectives_is_one_that_there_is() -> None:
    source = Path(hello.app.__file__).read_text()
    assert f'app.add_route("{metrics._USER}", ' in source


def test_a_method_that_a_client_invented_is_not_a_label() -> None:
    before = len(metrics._request_series)
    for n in range(100):
        environ = {"REQUEST_METHOD": f"BREW{n}", "hello.route": "/"}
        metrics.answered(environ, "400 Bad Request", 0.1)
    assert metrics.REQUESTS.rows["/", "other", "400"][0] >= 100
    assert len(metrics._request_series) == before
    assert not any("BREW" in label for labels in metrics.REQUESTS.rows for label in labels)
