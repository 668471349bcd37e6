"""Traces, as a collector receives them from the service."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.collector import Collector
from tests.support.postgres import Cluster
from tests.support.processes import eventually, free_port, stopped
from tests.support.service import NO_SECRETS, PATIENT, Crowd, Service, migrate, put

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GET, PUT = "GET /hello/{username}", "PUT /hello/{username}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


def traced(collector: Collector, **settings: str) -> Service:
    """A service that sends its spans ten times a second."""
    defaults = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.uri, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    return Service(**(defaults | settings))


def test_a_span_belongs_to_the_trace_of_its_caller(collector: Collector) -> None:
    with traced(collector, ACCESS_LOG="on").wait_until() as service, service.client() as client:
        headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        assert client.request("GET", "/hello/Rumpelstilz", headers=headers).status == 404
        client.put("Rumpelstilz", "1990-05-17")
        client.request("GET", "/nowhere/Rumpelstilz?born=1990-05-17")
        client.request("RUMPEL", "/")
        eventually(lambda: len(collector.named("HTTP /")) == 1)
        [span] = collector.named(GET)
        assert (span.trace_id, span.parent) == (TRACE, SPAN)
        assert span.kind == 2  # a server's
        assert span.attributes == {
            "http.request.method": "GET",
            "url.scheme": "http",
            "url.path": "/hello/REDACTED",
            "network.protocol.version": "1.1",
            "http.response.status_code": 404,
            "http.route": "/hello/{username}",
        }
        assert span.end > span.start
        assert not span.failed
        assert span.resource["service.name"] == "hello"
        assert span.resource["process.pid"] in service.workers
        # The batch it rode in, alone.
        [batch] = [batch for batch in collector.named("SELECT users") if batch.parent == span.id]
        assert (batch.trace_id, batch.links, span.links) == (TRACE, {span.id}, {batch.id})
        assert batch.kind == 3  # a client's
        assert batch.attributes == {
            "db.system.name": "sqlite",
            "db.operation.name": "SELECT",
            "db.collection.name": "users",
            "hello.batch.keys": 1,
            "hello.batch.requests": 1,
        }
        [unknown] = collector.named("GET")
        assert unknown.attributes["url.path"] == "/REDACTED"
        assert span.start <= batch.start <= batch.end <= span.end
        # Without a caller's, a trace of its own.
        [other] = collector.named(PUT)
        assert other.trace_id != TRACE
        assert other.parent == ""
        # The log tells which span a line belongs to.
        found = [json.loads(line) for line in service.log.splitlines()]
        assert [line["trace_id"] for line in found if line.get("span_id") == span.id] == [TRACE]
        for personal in (b"Rumpel", b"RUMPEL", b"1990", b"born"):
            assert personal not in collector.raw


def test_a_batch_is_linked_with_all_its_requests(
    collector: Collector, shared_cluster: Cluster, database: str
) -> None:
    uri = shared_cluster.uri(database)
    with (
        traced(collector, DB_URI=uri, **PATIENT).wait_until() as service,
        Crowd(service, 10) as crowd,
    ):
        with shared_cluster.holding("LOCK TABLE users", database):
            # The first rides alone and waits, the others wait for it; two have one key.
            crowd.send([put(f"user-{max(n, 2)}", "1990-05-17") for n in range(10)])
            crowd.settle()
        assert {answer.status for answer in crowd.receive()} == {204}
        eventually(lambda: len(collector.named(PUT)) == 10)
        requests = {span.id: span for span in collector.named(PUT)}
        batches = {span.id: span for span in collector.named("INSERT users")}
        assert sorted(len(batch.links) for batch in batches.values())[-1] > 1
        assert sum(len(batch.links) for batch in batches.values()) == 10
        for batch in batches.values():
            assert batch.attributes["hello.batch.requests"] == len(batch.links)
            assert batch.trace_id == requests[batch.parent].trace_id
            for request in batch.links:
                assert requests[request].links == {batch.id}
        # Ten requests, each in a trace of its own.
        assert len({span.trace_id for span in requests.values()}) == 10


def test_workers_send_their_last_spans_before_they_end(
    collector: Collector, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path}/users.db"
    assert migrate(uri).returncode == 0
    settings = {"DB_URI": uri, "WEB_CONCURRENCY": "2", "OTEL_BSP_SCHEDULE_DELAY": "600000"}
    settings |= {"OTEL_SERVICE_NAME": "named", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3cret"}
    with traced(collector, **settings).wait_until() as service:
        workers = service.workers
        # One worker can take every connection that comes alone: each is asked by itself.
        for other in workers:
            with stopped(other):
                for _ in range(50):
                    with service.client() as client:
                        assert client.get("nobody").status == 404
        assert collector.spans == []
        service.terminate()
        assert service.process.wait(20) == 0
        assert len(collector.named(GET)) == 100
        assert {span.resource["process.pid"] for span in collector.spans} == set(workers)
        assert {span.resource["service.name"] for span in collector.spans} == {"named"}
        assert len({span.resource["service.instance.id"] for span in collector.spans}) == 2
        assert {headers["api-key"] for headers in collector.headers} == {"s3cret"}


def test_who_is_not_sampled_costs_no_span(collector: Collector) -> None:
    with traced(collector).wait_until() as service, service.client() as client:
        headers = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
        client.request("GET", "/hello/nobody", headers=headers)
        client.put("somebody", "1990-05-17")
        eventually(lambda: collector.named(PUT) and collector.named("INSERT users"))
        assert collector.named(GET) == []
        assert TRACE not in {span.trace_id for span in collector.spans}


@pytest.mark.parametrize("state", ["away", "hangs"])
def test_a_collector_that_fails_stops_nobody(collector: Collector, state: str) -> None:
    collector.answers.clear()
    settings = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3cret", "LOG_LEVEL": "debug"}
    if state == "away":
        settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
    with traced(collector, **settings).wait_until() as service, service.client() as client:
        for n in range(20):
            assert client.put(f"user-{n}", "1990-05-17").status == 204
        if state == "away":
            eventually(lambda: "opentelemetry" in service.log)
        start = time.monotonic()
        service.terminate()
        assert service.process.wait(20) == 0
        assert time.monotonic() - start < 10
        assert "s3cret" not in service.log
        assert "Traceback" not in service.log


@pytest.mark.parametrize(
    "off",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_loaded_unless_it_is_switched_on(off: dict[str, str]) -> None:
    # redis-py looks for OpenTelemetry by itself, and loads what it finds.
    code = """if True:
        import sys
        from hello.app import wsgi
        wsgi()
        print([name for name in ("hello.traces", "opentelemetry.exporter") if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"SECRETS_DIR": NO_SECRETS} | off,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_the_extra_is_asked_for_where_it_is_missing(tmp_path: Path) -> None:
    # None says that there is no such module.
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from hello.settings import Settings; Settings.load()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "SECRETS_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    last = done.stderr.splitlines()[-1]
    assert last == (
        "hello.environment.SettingsError: OTEL_EXPORTER_OTLP_ENDPOINT: traces need the extra:"
        " pip install 'hello[otel]'"
    )


#: What `opentelemetry-instrument` does before anything else.
SITE = """
import falcon


class Instrumented(falcon.App):
    def __call__(self, env, start_response):
        print("instrumented", flush=True)
        return super().__call__(env, start_response)


falcon.App = Instrumented
"""


def test_the_service_starts_where_somebody_else_instruments_falcon(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITE)
    with (
        Service(PYTHONPATH=str(tmp_path)).wait_until() as service,
        service.client() as client,
    ):
        assert client.put("alice", "1990-05-17").status == 204
        assert client.get("alice").status == 200
        assert "instrumented" in service.log
