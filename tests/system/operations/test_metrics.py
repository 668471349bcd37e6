"""The figures that operators see, while workers die, reload and drain."""

import http.client
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.postgres import Cluster
from tests.support.processes import eventually, free_port
from tests.support.proxy import PASS, REFUSE, Proxy
from tests.support.service import NO_SECRETS, Service, Wire, head, migrate
from tests.support.stack import Stack

USER = "/hello/{username}"
BIRTHDAY = b'{"dateOfBirth": "1990-05-17"}'

#: {sample and its labels: value}, of a counter or a histogram, and of a gauge.
Samples = dict[tuple, float]


class Scrape:
    """What Prometheus reads."""

    def __init__(self, port: int, timeout: float = 15.0) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)) as connection:
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            self.text = response.read().decode()
            assert response.status == 200, self.text
        self.growing: Samples = {}
        self.gauges: Samples = {}
        for family in text_string_to_metric_families(self.text):
            samples = self.gauges if family.type == "gauge" else self.growing
            for sample in family.samples:
                samples[sample.name, *sample.labels.values()] = sample.value

    def __getitem__(self, sample: tuple) -> float:
        """The value of a sample; 0 if there is none yet."""
        return self.growing.get(sample, self.gauges.get(sample, 0))


@contextmanager
def observed(**settings: str) -> Iterator[tuple[Service, int]]:
    """A service with an admin port, and that port."""
    port = free_port()
    with Service(ADMIN_PORT=str(port), **settings).wait_until() as service:
        yield service, port


@pytest.fixture
def two_workers(tmp_path: Path) -> Iterator[tuple[Service, int]]:
    uri = f"sqlite:///{tmp_path}/users.db"
    assert migrate(uri).returncode == 0
    with observed(DB_URI=uri, WEB_CONCURRENCY="2") as (service, port):
        eventually(lambda: Scrape(port)[("hello_workers",)] == 2)
        yield service, port


def ask(service: Service, times: int) -> None:
    """Each time on a new connection, so that all workers have a part in it."""
    for _ in range(times):
        with service.client() as client:
            assert client.get("nobody").status == 404


def answered(port: int, route: str = USER, method: str = "GET", status: str = "404") -> float:
    return Scrape(port)["hello_http_requests_total", route, method, status]


class Watch:
    """Sees to it that no figure which may only grow goes back."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._last: Samples = {}

    def look(self) -> Scrape:
        try:
            scrape = Scrape(self._port)
        except (ConnectionError, http.client.RemoteDisconnected):
            # The worker that was killed had accepted it.
            scrape = Scrape(self._port)
        for sample, value in self._last.items():
            assert scrape[sample] >= value, sample
        self._last = scrape.growing
        return scrape


def test_figures_of_all_workers_are_complete_and_outlive_them(
    two_workers: tuple[Service, int],
) -> None:
    service, port = two_workers
    watch = Watch(port)
    ask(service, 100)
    eventually(lambda: answered(port) == 100)
    assert watch.look()["hello_batch_size_sum", "read"] >= 100
    for killed in range(1, 3):
        victim = service.workers[0]
        os.kill(victim, signal.SIGKILL)

        def replaced(victim: int = victim) -> bool:
            scrape = watch.look()
            return victim not in service.workers and scrape[("hello_workers",)] == 2

        eventually(replaced, within=20)
        assert answered(port) == 100 * killed
        ask(service, 100)

        def asked(expected: int = 100 * (killed + 1)) -> bool:
            watch.look()
            return answered(port) == expected

        eventually(asked)


def test_figures_outlive_a_reload(two_workers: tuple[Service, int]) -> None:
    service, port = two_workers
    watch = Watch(port)
    ask(service, 20)
    eventually(lambda: answered(port) == 20)
    before = set(service.workers)
    service.process.send_signal(signal.SIGHUP)

    def reloaded() -> bool:
        scrape = watch.look()
        return not before & set(service.workers) and scrape[("hello_workers",)] == 2

    eventually(reloaded, within=20)
    assert answered(port) == 20
    ask(service, 20)
    eventually(lambda: answered(port) == 40)


def test_figures_are_shown_while_the_service_drains(two_workers: tuple[Service, int]) -> None:
    service, port = two_workers
    with service.wire() as wire:
        wire.send(head("PUT /hello/alice", "Expect: 100-continue", "Content-Length: 29"))
        assert wire.read(25)
        assert Scrape(port)[("hello_draining",)] == 0
        service.terminate()
        eventually(lambda: Scrape(port)[("hello_draining",)] == 1)
        # One worker has ended, and the other goes on showing the figures of both.
        eventually(lambda: Scrape(port)[("hello_workers",)] == 1)
        wire.send(BIRTHDAY)
        assert wire.answer("PUT").status == 204
    assert service.process.wait(10) == 0
    with pytest.raises(ConnectionError):
        Scrape(port)


def test_workers_have_figures_of_their_processes(two_workers: tuple[Service, int]) -> None:
    service, port = two_workers
    scrape = Scrape(port)
    resident = [
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for pid in service.workers
    ]
    assert scrape[("hello_process_resident_memory_bytes",)] == pytest.approx(sum(resident), rel=0.2)
    assert 10 < scrape[("hello_process_open_fds",)] < 200
    limits = [resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] for pid in service.workers]
    assert scrape[("hello_process_max_fds",)] == sum(limits)
    assert 0 < time.time() - scrape[("hello_process_start_time_seconds",)] < 60
    before = scrape[("hello_process_cpu_seconds_total",)]
    assert before > 0
    ask(service, 50)
    eventually(lambda: Scrape(port)[("hello_process_cpu_seconds_total",)] > before)


REFUSED = {
    "400": b"Rumpelstilz 1990-05-17\r\n\r\n",
    "414": head(f"GET /hello/Rumpelstilz{'a' * 5000}"),
    "431": head("GET /hello/Rumpelstilz", f"X-Long: 1990-05-17{'a' * 9000}"),
}


def test_requests_of_every_kind_are_counted_and_nothing_personal_is_shown() -> None:
    with observed() as (service, port), service.client() as client:
        client.put("Rumpelstilz", "1990-05-17")
        client.get("Rumpelstilz")
        client.request("GET", "/Rumpelstilz?born=1990-05-17")
        client.request("RUMPEL", "/hello/Rumpelstilz")
        client.request("DELETE", "/hello/Rumpelstilz")
        client.request("HEAD", "/hello/Rumpelstilz")
        client.put("Rumpelstilz", "1990-02-30")
        with service.wire() as wire:  # gunicorn's own path
            wire.send(head("PUT /hello/Rumpelstilz", "Transfer-Encoding: chunked"))
            wire.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BIRTHDAY), BIRTHDAY))
            assert wire.answer("PUT").status == 204
        for status, request in REFUSED.items():
            with service.wire() as wire:
                wire.send(request)
                assert wire.answer().status == int(status)
        assert answered(port, method="PUT", status="204") == 2
        assert answered(port, method="PUT", status="400") == 1
        assert answered(port, method="DELETE", status="405") == 1
        assert answered(port, method="HEAD", status="200") == 1
        assert answered(port, method="GET", status="200") == 1
        assert answered(port, route="other", method="GET", status="404") == 1
        for status in REFUSED:
            assert answered(port, route="other", method="other", status=status) == 1
        assert answered(port, method="other", status="400") == 1
        # Without the values of samples: the memory in bytes may hold the digits of a year.
        text = re.sub(r"^([^#].*) \S+$", r"\1", Scrape(port).text, flags=re.MULTILINE)
        for personal in ("Rumpel", "RUMPEL", "1990", "born"):
            assert personal not in text


def test_the_application_does_not_show_them() -> None:
    with observed() as (service, _), service.client() as client:
        assert client.request("GET", "/metrics").status == 404


def test_a_service_with_a_replica_and_a_cache_shows_what_they_do() -> None:
    with Stack(replicas=1, cache=True) as stack:
        port = free_port()
        with stack.service(ADMIN_PORT=str(port)) as service, service.client() as client:
            client.put("alice", "1990-05-17")
            for _ in range(5):
                assert client.get("alice").status == 200
            scrape = Scrape(port)
            assert scrape["hello_cache_lookups_total", "hit"] > 0
            assert scrape["hello_cache_lookups_total", "miss"] > 0
            assert scrape["hello_fences_total", "passed"] > 0
            counts = "hello_statement_duration_seconds_count"
            for database, statement in [
                *(("primary", "save"), ("primary", "fence"), ("primary", "connect")),
                *(("replica", "find"), ("cache", "claim"), ("cache", "remove"), ("cache", "fill")),
            ]:
                assert scrape[counts, database, statement] > 0, statement
            dependencies = ("primary", "replica 1", "cache")

            def closed() -> bool:
                client.get("nobody")  # a breaker closes when its dependency has answered
                gauges = Scrape(port).gauges
                return not any(gauges["hello_breaker_open", name] for name in dependencies)

            eventually(closed)
            assert scrape.gauges["hello_replica_lag_bytes", "replica 1"] >= 0
            with stack.replica_killed(), stack.cache_killed():
                assert client.get("bob").status == 404
                scrape = Scrape(port)
                assert scrape["hello_fences_total", "failed"] > 0
                assert scrape[("hello_primary_reads_total",)] > 0
                assert scrape[("hello_cache_failures_total",)] > 0
                assert scrape["hello_breaker_open", "replica 1"] == 1
                assert scrape["hello_breaker_open", "cache"] == 1
            stack.heal()
            with stack.primary_killed():
                # Not before the breakers of the others have closed.
                eventually(lambda: client.get("carol").headers["Warning"])
                scrape = Scrape(port)
                assert scrape["hello_fences_total", "unfenced"] > 0
                assert scrape[("hello_stale_answers_total",)] > 0
                assert scrape["hello_breaker_open", "primary"] == 1


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_an_admin_port_that_is_taken_stops_the_start(taken: int) -> None:
    with Service(ADMIN_PORT=str(taken)) as service:
        assert service.process.wait(20) == 2
        [line] = [line for line in service.log.splitlines() if "ADMIN_PORT" in line]
        assert line.startswith("hello: ADMIN_PORT: cannot listen on 127.0.0.1, port ")
        assert "Traceback" not in service.log


def test_an_admin_port_that_nobody_asked_for_does_not_stop_the_start() -> None:
    with socket.socket() as other:
        with suppress(OSError):  # taken by another program is as good
            other.bind(("127.0.0.1", 9090))
            other.listen()
        with Service(ADMIN_PORT="").wait_until() as service:
            assert service.log.count("no metrics: cannot listen on 127.0.0.1, port 9090") == 1


def test_the_default_of_the_admin_port_gives_way_to_the_service() -> None:
    program = """
from types import SimpleNamespace
from hello.server import configuration
log = SimpleNamespace(warning=lambda text, *arguments: print(text % arguments))
configuration._open_admin_port(SimpleNamespace(cfg=SimpleNamespace(workers=1), log=log))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], "SECRETS_DIR": NO_SECRETS, "PORT": "9090"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (
        "no metrics: cannot listen on 127.0.0.1, port 9090: it is the same as PORT" in done.stdout
    )


def test_nothing_listens_without_an_admin_port() -> None:
    with Service(ADMIN_PORT="0").wait_until() as service:
        assert len(listening(service.process.pid)) == 1
        for worker in service.workers:
            assert len(listening(worker)) == 1


def listening(pid: int) -> set[str]:
    """The sockets on which a process listens."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            target = os.readlink(entry)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1])
    return found


def test_a_slow_client_of_the_admin_port_stops_nobody() -> None:
    with observed() as (service, port), Wire(port) as slow:
        slow.send(b"GET /metrics HTTP/1.1\r\nHost: he")
        start = time.monotonic()
        assert Scrape(port)[("hello_workers",)] == 1
        ask(service, 3)
        service.terminate()
        assert service.process.wait(20) == 0
        assert time.monotonic() - start < 20


def test_a_slow_client_of_the_admin_port_is_ended() -> None:
    with observed() as (_, port), Wire(port, timeout=30) as silent, Wire(port, timeout=30) as slow:
        slow.send(b"GET /metrics HTTP/1.1\r\nHost: he")
        assert slow.closed()
        assert silent.closed()


def test_a_primary_that_is_away_shows_without_a_replica_and_without_requests(
    shared_cluster: Cluster, database: str, proxy: Proxy
) -> None:
    with observed(DB_URI=shared_cluster.uri(database, proxy.port)) as (service, port):

        def left_alone() -> float:
            return Scrape(port)["hello_breaker_open", "primary"]

        assert left_alone() == 0
        proxy.mode = REFUSE
        proxy.reset()
        with service.client() as client:
            assert client.get("nobody").status == 503
        assert left_alone() == 1
        # Nobody asks any more, and yet it is seen that the primary is back.
        proxy.mode = PASS
        eventually(lambda: left_alone() == 0)
