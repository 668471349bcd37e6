"""What the probe from outside calls well: a real blackbox exporter asks the real service."""

import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import yaml

from tests.support.monitoring import MONITORING
from tests.support.processes import end, eventually, free_port
from tests.support.service import Service, day
from tests.support.stack import Stack

PROGRAM = shutil.which("prometheus-blackbox-exporter") or shutil.which("blackbox_exporter")

pytestmark = pytest.mark.skipif(
    PROGRAM is None,
    reason="needs the blackbox exporter (Debian's package prometheus-blackbox-exporter)",
)

PROBE = next(
    document["spec"]
    for document in yaml.safe_load_all((MONITORING / "probe.yaml").read_text())
    if document["kind"] == "Probe"
)


class Exporter:
    def __init__(self) -> None:
        assert PROGRAM is not None
        self.port = free_port()
        self.process = subprocess.Popen(
            [
                PROGRAM,
                f"--config.file={MONITORING / 'blackbox.yaml'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, port: int) -> bool:
        """Whether the probe of the manifests succeeds with a server on this port."""
        [address] = PROBE["targets"]["staticConfig"]["static"]
        target = f"http://127.0.0.1:{port}{urllib.parse.urlsplit(address).path}"
        query = urllib.parse.urlencode({"module": PROBE["module"], "target": target})
        url = f"http://127.0.0.1:{self.port}/probe?{query}"
        with urllib.request.urlopen(url, timeout=30) as response:
            [value] = re.findall(r"^probe_success (\d)$", response.read().decode(), re.M)
        return value == "1"


@pytest.fixture(scope="module")
def exporter() -> Iterator[Exporter]:
    exporter = Exporter()

    def answers() -> bool:
        assert exporter.process.poll() is None
        try:
            exporter.ask(free_port())
        except OSError:
            return False
        return True

    try:
        eventually(answers, within=30)
        yield exporter
    finally:
        end(exporter.process)


def test_a_service_that_works_is_well_whether_the_user_exists_or_not(exporter: Exporter) -> None:
    with Service().wait_until() as service:
        assert exporter.ask(service.port)
        with service.client() as client:
            assert client.put("probe", day(1)).status == 204
        assert exporter.ask(service.port)


def test_a_service_without_a_database_is_not_well(exporter: Exporter) -> None:
    with Stack() as stack, stack.service() as service:
        assert exporter.ask(service.port)
        with stack.primary_killed():
            assert not exporter.ask(service.port)


def test_nobody_there_is_not_well(exporter: Exporter) -> None:
    assert not exporter.ask(free_port())


class _NotFound(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


def test_a_balancer_that_answers_404_itself_is_not_well(exporter: Exporter) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _NotFound)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert not exporter.ask(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
