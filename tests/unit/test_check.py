import threading
import time
from collections.abc import Mapping

import pytest

from hello.check import GRACE, Report, ask_at_once
from hello.checks import Finding, measure
from hello.errors import DatabaseUnavailable, SchemaOutdated, Unavailable

UP = Finding(0.0123)
DOWN = Finding(2.0, DatabaseUnavailable("connection refused"))
OUTDATED = Finding(0.01, SchemaOutdated("the schema lacks 0001: run python -m hello migrate"))
DENIED = Finding(0.01, Unavailable("the role may not update the table cache_use"))
FOLLOWS = Finding(0.02, None, {"breaker": "closed", "lag_bytes": 4711})


def _works(timeout: float) -> Mapping[str, object]:
    return {"timeout": timeout}


def _fails(timeout: float) -> Mapping[str, object]:
    raise DatabaseUnavailable("connection refused")


def test_a_finding_has_what_the_check_says() -> None:
    finding = measure(_works, 3)
    assert (finding.problem, finding.details) == (None, {"timeout": 3})
    assert 0 <= finding.seconds < 3


def test_a_finding_has_what_is_wrong() -> None:
    finding = measure(_fails, 3)
    assert (finding.reason, finding.details) == ("connection refused", {})


def test_all_are_asked_at_once() -> None:
    both = threading.Barrier(2, timeout=10)

    def meets(timeout: float) -> Mapping[str, object]:
        both.wait()
        return {}

    found = ask_at_once({"one": meets, "other": meets}, 10)
    assert [finding.problem for finding in found.values()] == [None, None]


def test_a_check_that_hangs_is_not_waited_for() -> None:
    end = threading.Event()

    def hangs(timeout: float) -> Mapping[str, object]:
        end.wait()
        return {}

    start = time.monotonic()
    found = ask_at_once({"hangs": hangs, "works": _works, "fails": _fails}, 0.1)
    assert 0.1 + GRACE <= time.monotonic() - start < 10
    end.set()
    assert found["hangs"].reason == "no answer within 0.1 s"
    assert found["works"].problem is None
    assert found["fails"].reason == "connection refused"
    # In the order in which they were given.
    assert list(found) == ["hangs", "works", "fails"]


def test_a_mistake_of_ours_is_not_taken_for_a_fault() -> None:
    def mistaken(timeout: float) -> Mapping[str, object]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask_at_once({"mistaken": mistaken}, 1)


@pytest.mark.parametrize(
    ("report", "status", "schema", "get", "put"),
    [
        (Report("", UP, UP, UP), "ok", "current", "any", True),
        (Report("", UP, UP, UP, {"replica 1": FOLLOWS}, UP), "ok", "current", "any", True),
        (Report("", UP, UP, UP, {"replica 1": DOWN}), "degraded", "current", "any", True),
        (Report("", UP, UP, UP, {}, DOWN), "degraded", "current", "any", True),
        (Report("", UP, UP, DOWN), "degraded", "current", "any", False),
        # It can be read and not written: a role without the right to, or a standby.
        (Report("", DOWN, UP, DOWN), "degraded", "unknown", "any", False),
        (Report("", DOWN, UP, DOWN, {"replica 1": UP}), "degraded", "unknown", "stale", False),
        (
            Report("", DOWN, DOWN, DOWN, {"replica 1": DOWN}, UP),
            "unavailable",
            "unknown",
            "cached",
            False,
        ),
        (Report("", DOWN, DOWN, DOWN, {}, DOWN), "unavailable", "unknown", "none", False),
        (Report("", OUTDATED, OUTDATED, OUTDATED), "unavailable", "outdated", "none", False),
        # Nobody is answered on an old schema, cached or not.
        (
            Report("", OUTDATED, OUTDATED, OUTDATED, {"replica 1": OUTDATED}, UP),
            "unavailable",
            "outdated",
            "none",
            False,
        ),
        # Whatever a PUT needs: with the cache away, a right that nobody uses while it is there.
        (Report("", UP, UP, DENIED, {}, DOWN), "degraded", "current", "any", False),
    ],
)
def test_what_it_means(report: Report, status: str, schema: str, get: str, put: bool) -> None:
    assert (report.status, report.schema, report.get, report.put) == (status, schema, get, put)
    document = report.document()
    assert (document["status"], document["get"], document["put"]) == (status, get, put)
    assert document["schema"]["state"] == schema
    # People are told the same.
    lines = {line[:10].rstrip(): line[11:17].rstrip() for line in report.lines()}
    assert lines["GET"] == ("ok" if get == "any" else "FAILED")
    assert lines["PUT"] == ("ok" if put else "FAILED")
    assert lines["schema"] == ("ok" if schema == "current" else "FAILED")
    assert ("FAILED" in lines.values()) == (status != "ok")


def test_lines() -> None:
    report = Report(
        "PostgreSQL, 2 replicas",
        OUTDATED,
        DOWN,
        OUTDATED,
        {"replica 1": FOLLOWS, "replica 2": OUTDATED},
    )
    assert report.lines() == [
        "settings   ok               PostgreSQL, 2 replicas",
        # It answered, and said what it lacks.
        "primary    ok        10 ms",
        "schema     FAILED           the schema lacks 0001: run python -m hello migrate",
        "replica 1  ok        20 ms  follows the primary, 4711 bytes behind",
        "replica 2  FAILED    10 ms  it has not replayed the migrations of the schema yet",
        "GET        FAILED           503",
        "PUT        FAILED           503",
    ]


def test_why_a_put_would_fail_is_said_once() -> None:
    assert Report("", UP, UP, DENIED, {}, DOWN).lines()[-1] == (
        "PUT        FAILED           503: the role may not update the table cache_use"
    )
    assert Report("", DOWN, UP, DOWN).lines()[-1] == "PUT        FAILED           503"


def test_document() -> None:
    report = Report("", DOWN, UP, DOWN, {"replica 1": FOLLOWS}, UP, seconds=2.00049)
    assert report.document() == {
        "status": "degraded",
        "seconds": 2.0,
        "settings": {"state": "ok"},
        "schema": {"state": "unknown"},
        "dependencies": {
            "primary": {"state": "down", "latency_ms": 2000, "reason": "connection refused"},
            "replica 1": {
                "state": "up",
                "latency_ms": 20,
                "breaker": "closed",
                "lag_bytes": 4711,
            },
            "cache": {"state": "up", "latency_ms": 12.3},
        },
        "get": "stale",
        "put": False,
    }
