"""An upgrade as Kubernetes does it, behind a balancer, under load: no request notices."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.postgres import Cluster
from tests.system.processes import eventually, free_port
from tests.system.service import Client, Service, day, load

#: Debian has it where only root's PATH leads.
HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")

CONFIGURATION = """
global
    stats socket {directory}/admin level admin
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 20s
    # A request that meets an error is not sent again: it would hide what this test is for.
    retries 0
listen hello
    bind 127.0.0.1:{port}
    http-reuse always
    server one 127.0.0.1:1 disabled
    server two 127.0.0.1:1 disabled
"""

#: A change that the release before does not know about: the expand half of one.
EXPAND = "ALTER TABLE users ADD COLUMN note text"

CLIENTS = 16
USERS = 20

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="needs HAProxy to balance")


class Balancer:
    """HAProxy before two servers, `one` and `two`."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._socket = directory / "admin"
        configuration = directory / "haproxy.cfg"
        configuration.write_text(CONFIGURATION.format(directory=directory, port=self.port))
        self._process = subprocess.Popen(
            [HAPROXY, "-db", "-f", configuration],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(self._socket.exists)

    def client(self) -> Client:
        return Client(self.port)

    def add(self, name: str, service: Service) -> None:
        """Send requests to `service`, which is ready, as the server `name`."""
        self._tell(f"set server hello/{name} addr 127.0.0.1 port {service.port}")
        self._tell(f"set server hello/{name} state ready")

    def drop(self, name: str) -> None:
        """Send nothing more to a server. Requests under way go on, as with endpoints."""
        self._tell(f"set server hello/{name} state drain")

    def _tell(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self._socket))
            admin.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: admin.recv(65536), b"")).decode().strip()

    def __enter__(self) -> "Balancer":
        return self

    def __exit__(self, *_) -> None:
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture
def balancer(tmp_path: Path) -> Iterator[Balancer]:
    with Balancer(tmp_path) as balancer:
        yield balancer


def test_an_upgrade_with_a_migration_fails_and_loses_nothing(
    shared_cluster: Cluster, own_database: str, balancer: Balancer
) -> None:
    acknowledged: dict[str, str] = {}
    sent = [0] * CLIENTS

    def request(client: Client, number: int) -> None:
        n = sent[number] = sent[number] + 1
        name, born = f"user-{number}-{n % USERS}", day(n)
        assert client.put(name, born).status == 204
        acknowledged[name] = born
        assert client.get(name).status == 200

    with ExitStack() as stack:

        def start(name: str) -> Service:
            uri = shared_cluster.uri(own_database)
            service = stack.enter_context(Service(DB_URI=uri)).wait_until()
            balancer.add(name, service)
            return service

        instances = {name: start(name) for name in ("one", "two")}
        with load(balancer, CLIENTS, request) as running:
            running.go_on()
            shared_cluster.query(EXPAND, own_database)
            running.go_on()  # the old release, on the new schema
            for name, old in instances.items():
                balancer.drop(name)
                running.go_on()  # the time that preStop gives
                assert old.stop() == 0
                start(name)
                running.go_on()
    rows = shared_cluster.query("SELECT username, date_of_birth::text FROM users", own_database)
    assert dict(rows) == acknowledged
