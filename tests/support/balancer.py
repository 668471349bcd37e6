"""Load balancers before instances that come and go."""

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tests.support.haproxy import HAProxy
from tests.support.processes import eventually, free_port
from tests.support.service import Client, Service

T = TypeVar("T")

CONFIGURATION = """
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 20s
    # A request that meets an error is not sent again: it would hide what a test is for.
    retries 0
listen hello
    bind 127.0.0.1:{port}
    http-reuse always
    server one 127.0.0.1:1 disabled
    server two 127.0.0.1:1 disabled
"""


class Balancer(Protocol):
    """Sends requests to the services that were added and not dropped. What is under way to one
    that is dropped goes on, as with Kubernetes' endpoints."""

    port: int

    def client(self) -> Client: ...

    def add(self, name: str, service: Service) -> None: ...

    def drop(self, name: str) -> None: ...

    def close(self) -> None: ...


class HTTPBalancer:
    """HAProxy speaking HTTP: requests of one client are spread over the servers `one` and `two`."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._haproxy = HAProxy(directory, CONFIGURATION.format(port=self.port))

    def client(self) -> Client:
        return Client(self.port)

    def add(self, name: str, service: Service) -> None:
        self._haproxy.tell(f"set server hello/{name} addr 127.0.0.1 port {service.port}")
        self._haproxy.tell(f"set server hello/{name} state ready")

    def drop(self, name: str) -> None:
        self._haproxy.tell(f"set server hello/{name} state drain")

    def close(self) -> None:
        self._haproxy.close()


class KubeProxy:
    """Spreads connections, as kube-proxy and network load balancers do: it knows no HTTP.

    A client's connection leads to one service for as long as it lasts, so clients meet the end
    of a service themselves.
    """

    def __init__(self) -> None:
        self._ports: dict[str, int] = {}
        self._turn = itertools.count()
        # A loop knows its tasks only as long as somebody else does.
        self._connections: set[asyncio.Task | None] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=256))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def client(self) -> Client:
        return Client(self.port)

    def add(self, name: str, service: Service) -> None:
        self._ports[name] = service.port

    def drop(self, name: str) -> None:
        self._ports.pop(name, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._connections.add(task)
        try:
            await self._forward(reader, writer)
        finally:
            self._connections.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports = list(self._ports.values())
        try:
            # With nobody behind it, and nobody listening there, kube-proxy refuses.
            port = ports[next(self._turn) % len(ports)]
            theirs = await asyncio.open_connection("127.0.0.1", port)
        except (ZeroDivisionError, OSError):
            writer.transport.abort()
            return
        try:
            await asyncio.gather(self._copy(reader, theirs[1]), self._copy(theirs[0], writer))
        finally:
            for end in (writer, theirs[1]):
                end.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            # A reset of one side is one of the other.
            writer.transport.abort()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _stop(self) -> None:
        self._server.close()
        tasks = [task for task in self._connections if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.1)  # their transports close in their own turn

    def close(self) -> None:
        with suppress(TimeoutError):
            self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Kubelet:
    """Asks services whether they are ready, and lets a balancer have those that are.

    A service is dropped after `FAILURES` answers in a row that say no, or none.
    """

    INTERVAL = 0.2
    FAILURES = 2

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self.port = balancer.port
        self._services: dict[str, Service] = {}
        self._failures: dict[str, int] = {}
        #: How often each was asked.
        self.probes: Counter[str] = Counter()
        #: Those that the balancer has.
        self.ready: set[str] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._probe, daemon=True)

    def watch(self, name: str, service: Service) -> None:
        self._failures[name] = 0
        self._services[name] = service

    def go_on(self, probes: int) -> None:
        """Wait until each service was asked so often again."""
        before = Counter(self.probes)
        eventually(
            lambda: all(self.probes[name] - before[name] >= probes for name in self._services),
            within=60,
        )

    def _probe(self) -> None:
        while not self._stopped.wait(self.INTERVAL):
            for name, service in list(self._services.items()):
                self._judge(name, service, self._says_ready(service))
                self.probes[name] += 1

    @staticmethod
    def _says_ready(service: Service) -> bool:
        try:
            with service.client(timeout=3) as client:
                return client.request("GET", "/health/ready").status == 200
        except OSError:
            return False

    def _judge(self, name: str, service: Service, ready: bool) -> None:
        self._failures[name] = 0 if ready else self._failures[name] + 1
        if ready and name not in self.ready:
            self._balancer.add(name, service)
            self.ready.add(name)
        elif self._failures[name] >= self.FAILURES and name in self.ready:
            self._balancer.drop(name)
            self.ready.discard(name)

    def __enter__(self) -> "Kubelet":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
