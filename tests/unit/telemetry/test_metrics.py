"""The metrics are what operators' dashboards and alerts rest on: names and labels stay."""

import os
import subprocess
import sys
from pathlib import Path

from hello.telemetry import metrics

#: Of a process in which nothing has happened yet. Whoever adds a metric adds it here.
EXPECTED = Path(__file__).with_name("metrics.txt")

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


def test_a_method_that_a_client_invented_is_not_a_label() -> None:
    before = len(metrics._request_series)
    for n in range(100):
        environ = {"REQUEST_METHOD": f"BREW{n}", "hello.route": "/"}
        metrics.answered(environ, "400 Bad Request", 0.1)
    assert metrics.REQUESTS.rows["/", "other", "400"][0] >= 100
    assert len(metrics._request_series) == before
    assert not any("BREW" in label for labels in metrics.REQUESTS.rows for label in labels)
