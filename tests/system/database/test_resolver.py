"""Names that a silent name server is asked for."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import Cluster
from tests.support.processes import eventually
from tests.support.service import Service
from tests.support.valkey import Valkey

#: Where the name server of `silent` says nothing: the C library waits, in its thread.
SITE = """
import _socket
from time import sleep

look_up = _socket.getaddrinfo


def getaddrinfo(host, *arguments, **options):
    if str(host).endswith(".silent"):
        sleep(60)
    return look_up(host, *arguments, **options)


_socket.getaddrinfo = getaddrinfo
"""

#: Seconds: more than whatever has an end here takes on a slow machine, and less than SITE's.
BOUND = 20.0


@pytest.fixture
def silent(tmp_path: Path) -> dict[str, str]:
    """Settings of a service whose name server is silent about names in `silent`."""
    (tmp_path / "sitecustomize.py").write_text(SITE)
    return {"PYTHONPATH": str(tmp_path)}


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    valkey = Valkey().start()
    yield valkey
    valkey.destroy()


def test_a_cache_whose_name_is_not_resolved_is_away(
    shared_cluster: Cluster, database: str, silent: dict[str, str]
) -> None:
    settings = silent | {
        "DB_URI": shared_cluster.uri(database),
        "CACHE_URI": "redis://cache.silent:6379/0",
    }
    with Service(**settings).wait_until() as service, service.client() as client:
        start = time.monotonic()
        assert client.get("alice").status == 404
        for n in range(1, 21):
            assert client.put("alice", f"1990-05-{n:02}").status == 204
            assert client.get("alice").status == 200
        assert time.monotonic() - start < BOUND
        # Its host could not be resolved, or all of its time was over, whichever is first.
        assert "the cache does not answer: " in service.log or "cannot be written" in service.log
        assert "Traceback" not in service.log


def test_a_database_whose_name_is_not_resolved_is_away(
    shared_cluster: Cluster, database: str, silent: dict[str, str]
) -> None:
    with (
        Service(
            **silent,
            DB_URI="postgresql://postgres@primary.silent/hello",
            DB_READ_URI=shared_cluster.uri(database),
        ).wait_until("/health/live") as service,
        service.client() as client,
    ):
        start = time.monotonic()
        assert client.put("alice", "1990-05-17").status == 503
        assert time.monotonic() - start < BOUND
        assert "could be resolved in time" in service.log


def test_a_name_that_is_not_resolved_does_not_keep_others_waiting(silent: dict[str, str]) -> None:
    # More than gevent has threads for.
    program = """if True:
        from hello import server
        from hello.resolver import addresses
        for _ in range(50):
            assert addresses("cache.silent", 0.01) == []
        assert "127.0.0.1" in addresses("localhost", 10)
        assert addresses("127.0.0.1", 0) == ["127.0.0.1"]
        print("done", flush=True)
        import os
        os._exit(0)
    """
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"]} | silent,
        capture_output=True,
        text=True,
        timeout=BOUND,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_a_host_without_an_address_is_away(shared_cluster: Cluster, database: str) -> None:
    # No resolver is asked about a label of more than 63 characters.
    uri = f"redis://{'a' * 64}:6379/0"
    settings = {"DB_URI": shared_cluster.uri(database), "CACHE_URI": uri}
    with Service(**settings).wait_until() as service, service.client() as client:
        assert client.put("alice", "1990-05-17").status == 204
        assert client.get("alice").status == 200
        assert "Traceback" not in service.log


def test_a_cache_is_found_by_its_name(
    shared_cluster: Cluster, database: str, valkey: Valkey
) -> None:
    settings = {
        "DB_URI": shared_cluster.uri(database),
        "CACHE_URI": f"redis://localhost:{valkey.port}/0",
        # `localhost` may have an address on which nobody listens.
        "CACHE_TIMEOUT": "2",
    }
    with Service(**settings).wait_until() as service, service.client() as client:
        client.put("alice", "1990-05-17")

        def cached() -> bool:
            client.get("alice")
            with valkey.client as store:
                return bool(store.keys("*alice"))

        eventually(cached)


def test_the_name_of_the_cache_is_what_its_certificate_must_have(
    shared_cluster: Cluster, database: str
) -> None:
    # The wheel's Valkey was built without TLS. The name that is verified is the one that is
    # said first of all, in clear.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(BOUND)
        settings = {
            "DB_URI": shared_cluster.uri(database),
            "CACHE_URI": f"rediss://localhost:{listener.getsockname()[1]}/0",
        }
        with Service(**settings).wait_until("/health/live") as service, service.client() as client:
            client.send("GET", "/hello/alice")
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(BOUND)
                hello = connection.recv(65536)
            assert hello[0] == 22  # a TLS handshake
            assert b"localhost" in hello
            assert client.receive().status == 404
