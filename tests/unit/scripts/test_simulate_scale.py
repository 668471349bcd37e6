from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scripts.simulate_scale import Assumptions, fill, plan, plot, simulate_lanes, tables, wal_mb

DOCS = Path(__file__).parents[3] / "docs"
NORMAL = Assumptions()
SMALL = replace(NORMAL, users=1e6, requests=1e3)


def test_a_request_that_is_alone_waits_for_nobody() -> None:
    batch, wait = simulate_lanes(1, 2, round_trip_us=500, statement_us=20, row_us=5)
    assert batch == pytest.approx(1, abs=0.01)
    assert wait == pytest.approx(525, abs=1)


def test_batches_grow_with_the_load_and_the_wait_hardly_does() -> None:
    few, soon = simulate_lanes(1_000, 1, 500, 20, 5)
    many, later = simulate_lanes(50_000, 1, 500, 20, 5)
    # A statement takes some 650 µs then, in which 33 others come.
    assert few < 2 < 25 < many < 45
    # Half of the statement before, and one's own.
    assert later < 2 * soon


def test_a_lane_that_cannot_keep_up_falls_behind() -> None:
    _, wait = simulate_lanes(1_000_000, 1, 500, 20, 5)
    assert wait > 2_000


def test_two_lanes_share_the_requests() -> None:
    one, _ = simulate_lanes(20_000, 1, 500, 20, 5)
    two, _ = simulate_lanes(20_000, 2, 500, 20, 5)
    assert two < 0.7 * one


def test_the_log_holds_a_page_once_for_each_checkpoint() -> None:
    a = replace(NORMAL, wal_bytes=100, image_bytes=7_000, page_rows=100, checkpoint_s=100)
    # Few changes in a large table: each is the first of its page.
    assert wal_mb(a, 1e9, 10) == pytest.approx(10 * 7_100 / 1e6, rel=0.01)
    # Many in a small one: ten pages, over and over.
    assert wal_mb(a, 1_000, 10_000) == pytest.approx((10_000 * 100 + 10 * 70) / 1e6, rel=0.01)


def test_little_needs_little() -> None:
    p = plan(SMALL)
    assert (p.cells, p.pods, p.replicas, p.reason) == (1, 2, 0, "")
    assert p.primary_connections == 6


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"database_cores": 0.05}, "work of the primary"),
        ({"database_max_connections": 5, "requests": 1e5, "margin": 1}, "connections"),
        ({"database_max_gb": 0.1}, "storage"),
        ({"database_max_wal_mb": 0.1, "requests": 1e4}, "write-ahead log"),
        ({"replicas_max": 1, "requests": 1e6, "write_share": 0.0, "fence_us": 0}, "replicas"),
    ],
)
def test_each_limit_makes_cells(limits: dict, reason: str) -> None:
    a = replace(SMALL, **limits)
    if reason == "connections":
        # Two pods are the least that a cell has.
        with pytest.raises(ValueError, match="no number of cells"):
            plan(a)
        return
    p = plan(a)
    assert p.cells > 1
    assert p.reason == reason


@pytest.mark.parametrize("requests", [1e3, 1e5, 1e6])
def test_a_plan_keeps_the_limits(requests: float) -> None:
    a = replace(NORMAL, requests=requests)
    p = plan(a)
    assert p.primary_cores <= a.database_cores * a.utilisation
    assert p.replica_cores <= a.database_cores * a.utilisation
    assert p.primary_connections <= a.database_max_connections
    assert p.storage_gb <= a.database_max_gb
    assert p.wal_mb <= a.database_max_wal_mb
    assert p.cells & (p.cells - 1) == 0


def test_more_load_never_needs_fewer_pods() -> None:
    pods = [plan(replace(NORMAL, requests=r)).total_pods for r in (1e4, 1e5, 1e6, 4e6)]
    assert pods == sorted(pods)


def test_the_document_says_what_the_program_says() -> None:
    document = (DOCS / "scaling.md").read_text()
    assert fill(document, tables(NORMAL)) == document
    picture = (DOCS / "scaling.svg").read_text()
    assert picture == plot(NORMAL)
    ElementTree.fromstring(picture)


def test_a_table_without_a_place_is_noticed() -> None:
    with pytest.raises(ValueError, match="0 places for the table growth"):
        fill("nothing here", {"growth": []})
