import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import falcon
import falcon.testing
import pytest
from prometheus_client.parser import text_string_to_metric_families

import hello
from hello.app import create_admin_app
from hello.telemetry import metrics
from hello.telemetry.metrics import Counter, Gauge, Histogram, Snapshot
from hello.telemetry.shared import Board

SOURCES = Path(hello.__file__).parent


@pytest.fixture(autouse=True)
def own_metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What a test makes is forgotten, and what it restores taken back."""
    before = {name: {k: list(v) for k, v in m.rows.items()} for name, m in _all().items()}
    monkeypatch.setattr(metrics, "metrics", dict(metrics.metrics))
    yield metrics.metrics
    for name, rows in before.items():
        for labels, values in rows.items():
            _all()[name].rows[labels][:] = values


def _all() -> dict[str, Any]:
    return metrics.metrics


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
        sizes.observe(("x",), value)
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
    metrics.STATEMENT_SECONDS.observe(("primary", "find"), 0.1)
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


def test_events_with_known_labels_are_shown_before_they_happen() -> None:
    shown = show((True, metrics.snapshot()))
    assert ("foreign",) in shown["hello_fences_total"]
    assert ("write",) in shown["hello_requests_shed_total"]
    assert () in shown["hello_stale_answers_total"]


def test_every_event_that_the_code_counts_is_known() -> None:
    found = {
        event
        for path in SOURCES.rglob("*.py")
        for event in re.findall(r'\bcount\("(\w+)"', path.read_text())
    }
    assert len(found) > 5
    assert found <= metrics.events.keys()


def test_a_method_that_a_client_invented_is_not_a_label() -> None:
    before = len(metrics._request_rows)
    for n in range(100):
        environ = {"REQUEST_METHOD": f"BREW{n}", "hello.route": "/"}
        metrics.answered(environ, "400 Bad Request", 0.1)
    assert metrics.REQUESTS.rows["/", "other", "400"][0] >= 100
    assert len(metrics._request_rows) == before
    assert not any("BREW" in label for labels in metrics.REQUESTS.rows for label in labels)


def test_what_only_grows_goes_on_from_the_past() -> None:
    events = Counter("events_total", "Events.", "kind")
    now = Gauge("now", "Now.", "kind")
    kept = events.row(("x",))
    kept[0] = 1
    now.set(("x",), 1)
    metrics.restore(figures(events_total=[41], now=[5], of_another_release=[1]))
    assert (events.rows["x",], now.rows["x",]) == ([42], [1])
    assert events.row(("x",)) is kept


def test_a_slot_is_used_again_and_shows_its_last_figures_meanwhile() -> None:
    board = Board(2)
    assert [board.claim(), board.claim(), board.claim()] == [0, 1, None]
    assert board.read_all() == [(False, {}), (False, {})]
    board.write(0, figures(a=[1]))
    board.write(1, figures(a=[2]))
    board.write(1, figures(a=[3]))
    board.release(1)
    assert board.read_all() == [(True, figures(a=[1])), (False, figures(a=[3]))]
    assert board.claim() == 1
    # Its new worker has shown nothing yet.
    assert board.read(1) == (False, figures(a=[3]))
    board.write(1, figures(a=[4]))
    assert board.read(1) == (True, figures(a=[4]))


def test_a_worker_killed_while_it_writes_leaves_what_it_wrote_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = Board(1)
    slot = board.claim()
    assert slot is not None
    board.write(slot, figures(a=[1]))

    class Killed(Exception):
        pass

    def die(data: bytes) -> int:
        raise Killed

    # Between any two steps: before the page, and after its head.
    monkeypatch.setattr("hello.telemetry.shared.zlib.crc32", die)
    with pytest.raises(Killed):
        board.write(slot, figures(a=[2]))
    monkeypatch.undo()
    assert board.read(slot) == (True, figures(a=[1]))


def test_readers_see_whole_figures_while_a_writer_is_killed_again_and_again() -> None:
    # Numbers of all rows are equal in each snapshot that was written.
    board = Board(1)
    slot = board.claim()
    assert slot is not None
    last = 0.0
    for _ in range(5):
        pid = os.fork()
        if not pid:
            # Nothing of pytest may run in the child.
            value = last
            while True:
                value += 1
                board.write(slot, {"a": {(str(n),): [value] for n in range(200)}})
        try:
            reads = 0
            while reads < 200:
                _, found = board.read(slot)
                values = {row[0] for row in found.get("a", {}).values()}
                assert len(values) <= 1
                if values:
                    reads += 1
                    assert values.pop() >= last
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        last = max(row[0] for row in board.read(slot)[1]["a"].values())
        assert last > 0


def test_too_many_figures_are_refused_and_the_last_ones_stay() -> None:
    board = Board(1)
    board.claim()
    board.write(0, figures(a=[1]))
    with pytest.raises(ValueError, match="do not fit"):
        board.write(0, {"a": {(str(n),): [float(n)] for n in range(20_000)}})
    assert board.read(0) == (True, figures(a=[1]))


def test_nothing_but_metrics_is_on_the_admin_port() -> None:
    client = falcon.testing.TestClient(create_admin_app(list, "cafe"))
    assert client.simulate_get("/").status_code == 404
    assert client.simulate_head("/metrics").status_code == 200
    assert client.simulate_post("/metrics").status_code == 405
