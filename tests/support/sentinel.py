"""Two servers of Valkey, three Sentinels that make one the primary, and HAProxy before both."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.support.haproxy import HAProxy, documented
from tests.support.processes import eventually, free_port, stopped
from tests.support.valkey import Valkey, program

#: Milliseconds after which a primary that is not heard of is replaced.
DOWN_AFTER = 1_000

SENTINEL = """
port {port}
bind 127.0.0.1
dir {directory}
sentinel monitor cache 127.0.0.1 {primary} 2
sentinel down-after-milliseconds cache {down_after}
sentinel failover-timeout cache 5000
"""


class SentinelCache:
    """What CACHE_URI names: whichever of both servers says that it is a primary."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="hello-sentinel-")
        directory = Path(self._directory.name)
        # A replica that asks for a copy gets it at once.
        first = Valkey("--repl-diskless-sync-delay", "0").start()
        second = Valkey("--repl-diskless-sync-delay", "0").start()
        self.servers = [first, second]
        with second.client as client:
            client.replicaof("127.0.0.1", first.port)
            eventually(lambda: client.info("replication")["master_link_status"] == "up")
        self._ports = [free_port() for _ in range(3)]
        self._processes = [self._start(directory, port) for port in self._ports]
        eventually(self._know_all, within=30)
        self.port = free_port()
        changes = {"bind :6379": f"bind 127.0.0.1:{self.port}"}
        for name, server in zip(("one", "two"), self.servers, strict=True):
            changes[f"server {name} .*"] = f"server {name} 127.0.0.1:{server.port}"
        self._haproxy = HAProxy(directory, documented("listen cache", changes))
        eventually(lambda: self._primaries == [first])

    def _start(self, directory: Path, port: int) -> subprocess.Popen:
        own = directory / str(port)
        own.mkdir()
        configuration = own / "sentinel.conf"
        configuration.write_text(
            SENTINEL.format(
                port=port, directory=own, primary=self.servers[0].port, down_after=DOWN_AFTER
            )
        )
        return subprocess.Popen(
            [program(), configuration, "--sentinel"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _know_all(self) -> bool:
        """Whether each Sentinel knows of the others, and of the replica."""
        try:
            states = [self._ask(port, "SENTINEL MASTER") for port in self._ports]
        except redis.RedisError:
            return False
        return all(s["num-other-sentinels"] == 2 and s["num-slaves"] == 1 for s in states)

    @staticmethod
    def _ask(port: int, command: str) -> dict:
        with redis.Redis(port=port, socket_timeout=5, decode_responses=True) as client:
            return client.execute_command(command, "cache")

    @property
    def uri(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def _primaries(self) -> list[Valkey]:
        """Those that say that they are."""
        return [server for server in self.servers if _role(server) == "master"]

    @property
    def primary(self) -> Valkey:
        [primary] = self._primaries
        return primary

    def another(self, than: Valkey) -> Valkey:
        """Wait until the other one is a primary."""
        [other] = [server for server in self.servers if server is not than]
        eventually(lambda: _role(other) == "master", within=30)
        return other

    def settle(self) -> None:
        """Wait until one of both follows the other."""

        def settled() -> bool:
            roles = [_role(server) for server in self.servers]
            return sorted(map(str, roles)) == ["master", "slave"]

        eventually(settled, within=60)

    # What can happen to the primary; as each block begins, it has happened.

    @contextmanager
    def killed(self, primary: Valkey) -> Iterator[None]:
        primary.kill()
        yield
        primary.start()

    @contextmanager
    def frozen(self, primary: Valkey) -> Iterator[None]:
        with stopped(primary.process.pid):
            yield

    def close(self) -> None:
        self._haproxy.close()
        for process in self._processes:
            process.kill()
            process.wait()
        for server in self.servers:
            server.destroy()
        self._directory.cleanup()

    def __enter__(self) -> "SentinelCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _role(server: Valkey) -> str | None:
    """What a server says of itself; None if it does not answer."""
    with redis.Redis(port=server.port, socket_timeout=0.5, decode_responses=True) as client:
        try:
            role: str = client.info("replication")["role"]
        except redis.RedisError:
            return None
    return role
