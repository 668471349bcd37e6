"""What alerts and dashboard ask for, and what the running service shows."""

import re
import urllib.request
from collections.abc import Iterator

import pytest

from tests.support import monitoring
from tests.support.processes import eventually, free_port
from tests.support.prometheus import INSTALLED, Prometheus
from tests.support.service import Client, Service, day, load
from tests.support.stack import Stack

needs_prometheus = pytest.mark.skipif(
    not INSTALLED, reason="needs Prometheus (Debian's package prometheus)"
)


def exposition(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=15) as response:
        return str(response.read(), "utf-8")


def exported(text: str) -> set[str]:
    """The names that Prometheus makes of an exposition."""
    names = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M):
        if kind == "histogram":
            names |= {f"{name}_{suffix}" for suffix in ("bucket", "sum", "count")}
        else:
            names.add(name)
    return names


def test_the_service_exports_what_is_asked_for() -> None:
    port = free_port()
    with Service(ADMIN_PORT=str(port)).wait_until():
        names = exported(exposition(port))
    assert monitoring.used().keys() <= names


def _ask(client: Client, number: int) -> None:
    for n in range(10):
        assert client.put(f"user-{number}-{n}", day(n)).status == 204
        assert client.get(f"user-{number}-{n}").status == 200


def _fail(client: Client, number: int) -> None:
    assert client.put("alice", day(number)).status == 503
    client.get("nobody")


@pytest.fixture(scope="module")
def scraped() -> Iterator[Prometheus]:
    """A Prometheus that has seen the service at work, and in trouble."""
    admin = free_port()
    with (
        Stack(replicas=1, cache=True) as stack,
        stack.service(WEB_CONCURRENCY="2", ADMIN_PORT=str(admin)) as service,
        Prometheus([admin], monitoring.rules_spec()) as prometheus,
    ):
        prometheus.wait_until()
        eventually(lambda: prometheus.query("up == 1"), within=30)
        with load(service, 4, _ask) as clients:
            clients.go_on()
            seen = "sum(rate(hello_http_requests_total[1m])) > 0"
            eventually(lambda: prometheus.query(seen), within=60)
        with stack.primary_killed(), load(service, 1, _fail):
            # A rate needs two scrapes that have seen it.
            eventually(lambda: prometheus.query("hello:errors:ratio_rate3d > 0"), within=60)
        yield prometheus


@needs_prometheus
def test_prometheus_sees_every_series_that_is_asked_for(scraped: Prometheus) -> None:
    wanted = [str(s) for selectors in monitoring.used().values() for s in selectors]
    missing = [selector for selector in wanted if not scraped.query(selector)]
    assert not missing


@needs_prometheus
def test_every_record_has_a_value(scraped: Prometheus) -> None:
    def missing() -> list[str]:
        return [name for name in monitoring.records() if not scraped.query(name)]

    eventually(lambda: not missing(), within=30)


@needs_prometheus
def test_every_panel_has_something_to_show(scraped: Prometheus) -> None:
    for title, targets in monitoring.panels().items():
        for expr in targets:
            values = [series["value"][1] for series in scraped.query(expr)]
            assert set(values) - {"NaN"}, f"{title}: {expr}"


@needs_prometheus
def test_prometheus_evaluates_every_rule(scraped: Prometheus) -> None:
    rules = [rule for group in scraped.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == (
        monitoring.alerts().keys() | monitoring.records().keys()
    )
    assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}
