from typing import Any

import pytest

from hello.telemetry import metric_types
from hello.telemetry.metric_types import Counter, Gauge, Histogram


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a test declares is forgotten."""
    monkeypatch.setattr(metric_types, "registry", {})
    return metric_types.registry


def test_a_series_is_the_same_whenever_it_is_asked_for() -> None:
    events = Counter("events_total", "Events.", "kind")
    assert events.labels("x") is events.labels("x")
    assert events.labels("x") is not events.labels("y")


def test_counters_that_are_shown_from_the_start_are_zero() -> None:
    Counter("events_total", "Events.", "kind", start=[("x",), ("y",)])
    Counter("seldom_total", "Seldom.", "kind")
    Histogram("seconds", "Seconds.", "kind", bounds=(1,), start=[("x",)])
    assert metric_types.snapshot() == {
        "events_total": {("x",): [0], ("y",): [0]},
        "seldom_total": {},
        "seconds": {("x",): [0, 0, 0]},
    }


def test_what_happened_is_in_the_next_snapshot() -> None:
    events = Counter("events_total", "Events.").labels()
    seconds = Histogram("seconds", "Seconds.", bounds=(1, 2)).labels()
    events.inc()
    events.inc(2.5)
    for value in (1, 1.5, 3):
        seconds.observe(value)
    assert metric_types.snapshot() == {"events_total": {(): [3.5]}, "seconds": {(): [1, 1, 1, 5.5]}}


def test_a_gauge_that_is_watched_is_asked_each_time() -> None:
    waiting: list[int] = []
    Gauge("waiting", "Waiting.").labels().watch(lambda: len(waiting))
    assert metric_types.snapshot()["waiting"] == {(): [0]}
    waiting.append(1)
    assert metric_types.snapshot()["waiting"] == {(): [1]}


def test_a_gauge_is_not_shown_when_nobody_has_set_it_for_a_minute() -> None:
    lag = Gauge("lag", "Lag.", "replica")
    Gauge("waiting", "Waiting.").labels().watch(lambda: 3)
    events = Counter("events_total", "Events.").labels()

    def shown(now: float) -> metric_types.Snapshot:
        return metric_types.snapshot(lambda: now)

    lag.labels("one").set(5)
    events.inc()
    everything = {"lag": {("one",): [5]}, "waiting": {(): [3]}, "events_total": {(): [1]}}
    assert shown(100) == everything
    assert shown(159) == everything
    # What is asked each time, and what only grows, stays.
    assert shown(161) == everything | {"lag": {}}
    lag.labels("one").set(5)
    assert shown(162) == everything
    assert shown(221) == everything
    assert shown(223) == everything | {"lag": {}}


def test_what_only_grows_goes_on_from_the_past() -> None:
    events = Counter("events_total", "Events.", "kind")
    seconds = Histogram("seconds", "Seconds.", bounds=(1,)).labels()
    now = Gauge("now", "Now.", "kind")
    kept = events.labels("x")
    kept.inc()
    seconds.observe(2)
    now.labels("x").set(1)
    metric_types.restore(
        {
            "events_total": {("x",): [41], ("y",): [5]},
            "seconds": {(): [3, 4, 9]},
            "now": {("x",): [5]},
            "of_another_release": {("x",): [1]},
        }
    )
    assert (events.rows, now.rows) == ({("x",): [42], ("y",): [5]}, {("x",): [1]})
    assert seconds.row == [3, 5, 11]
    assert events.labels("x") is kept
