"""What alerts and dashboard ask for, and what the running service shows."""

import re
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

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


#: What a cluster and the probe would show, in the form in which they do.
ELSEWHERE = {
    "kube-state-metrics": """
kube_pod_info{namespace="test", pod="revolut-0", node="one"} 1
kube_node_labels{node="one", label_topology_kubernetes_io_zone="a"} 1
kube_pod_container_resource_requests{namespace="test", pod="pod-0", container="hello", resource="cpu"} 0.25
kube_pod_container_status_restarts_total{namespace="test", pod="revolut-0", container="hello"} 0
kube_deployment_spec_replicas{namespace="test", deployment="revolut"} 1
kube_deployment_status_replicas_available{namespace="test", deployment="revolut"} 1
kube_horizontalpodautoscaler_status_current_replicas{namespace="test", horizontalpodautoscaler="revolut"} 1
kube_horizontalpodautoscaler_status_desired_replicas{namespace="test", horizontalpodautoscaler="revolut"} 1
kube_horizontalpodautoscaler_spec_min_replicas{namespace="test", horizontalpodautoscaler="revolut"} 1
kube_horizontalpodautoscaler_spec_max_replicas{namespace="test", horizontalpodautoscaler="revolut"} 2
""",  # noqa: E501  # one sample a line
    "revolut-probe": 'probe_success{namespace="test"} 1\n',
}


@contextmanager
def elsewhere() -> Iterator[dict[str, int]]:
    """Servers that show that, and nothing else: the port of each, by its job."""
    with ExitStack() as servers:
        ports = {}
        for job, text in ELSEWHERE.items():

            class Shown(BaseHTTPRequestHandler):
                answer = text.encode()

                def do_GET(self) -> None:
                    self.send_response(200)
                    self.send_header("Content-Type", "text/plain; version=0.0.4")
                    self.send_header("Content-Length", str(len(self.answer)))
                    self.end_headers()
                    self.wfile.write(self.answer)

                def log_message(self, *_: object) -> None:
                    pass

            server = servers.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Shown))
            Thread(target=server.serve_forever, daemon=True).start()
            servers.callback(server.shutdown)
            ports[job] = server.server_port
        yield ports


@pytest.fixture(scope="module")
def scraped() -> Iterator[Prometheus]:
    """A Prometheus that has seen the service at work, and in trouble."""
    admin = free_port()
    with (
        elsewhere() as others,
        Stack(replicas=1, cache=True) as stack,
        stack.service(WEB_CONCURRENCY="2", ADMIN_PORT=str(admin)) as service,
        Prometheus([admin], monitoring.rules_spec(), others=others) as prometheus,
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


#: Panels of what goes wrong.
WRONG = [
    "Errors",
    "Speed at which the budgets are used up",
    "Refused and late",
    "Tried again, run key by key",
    "Left alone",
    "Reads that fell to the primary",
    "Stale answers",
    "Failures and suspensions",
    "Restarts of containers, 1 h",
    "Pods that are missing",
]


@needs_prometheus
def test_what_goes_wrong_is_shown_as_0_when_all_is_well() -> None:
    # Nobody asks, there is no replica, no cache, no cluster: no panel is empty for that.
    admin = free_port()
    with (
        Service(ADMIN_PORT=str(admin)).wait_until(),
        Prometheus([admin], monitoring.rules_spec()) as prometheus,
    ):
        prometheus.wait_until()
        eventually(lambda: prometheus.query("hello:errors:ratio_rate5m"), within=60)
        for title in WRONG:
            for expr in monitoring.panels()[title]:
                values = {series["value"][1] for series in prometheus.query(expr)}
                assert values == {"0"}, f"{title}: {expr}"


@needs_prometheus
def test_prometheus_evaluates_every_rule(scraped: Prometheus) -> None:
    rules = [rule for group in scraped.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == (
        monitoring.alerts().keys() | monitoring.records().keys()
    )
    assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}
