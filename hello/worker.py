"""gunicorn's gevent worker, with a short way for plain requests and a drain that loses nothing.

On SIGTERM the worker goes on accepting for a moment, so that connections which the kernel
has completed are served; every answer then closes its connection; idle connections are
closed; the worker ends with the last answer. gunicorn waits for idle connections until
`graceful_timeout`.
"""

import os
import time
from typing import Any

from gevent import get_hub, monkey, sleep
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.http import message, wsgi
from gunicorn.workers.ggevent import GeventWorker

from hello import lean, stock
from hello.connection import Connection
from hello.lifecycle import process
from hello.settings import Settings

#: Seconds for which a draining worker still accepts, and answers on connections that
#: are idle: requests that were on their way when SIGTERM came.
LINGER = 0.5

#: Seconds between two looks at the deadlines of connections.
TICK = 0.5


class Worker(GeventWorker):  # type: ignore[misc]
    alive: bool

    def init_process(self) -> None:
        if not monkey.is_module_patched("socket"):
            raise RuntimeError("start gunicorn with -c python:hello.server, which patches first")
        wsgi.Response = stock.Response
        settings = Settings.load()
        self.head_timeout = settings.head_timeout
        self.body_timeout = settings.body_timeout
        self._stopping = Event()
        self._connections: set[Connection] = set()
        super().init_process()

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        self._stopping.set()

    @property
    def _foreign(self) -> bool:
        """Whether connections speak something else first: all of it is gunicorn's business."""
        return (
            self.cfg.is_ssl
            or self.cfg.proxy_protocol != "off"
            or "h2" in self.cfg.http_protocols
            or not self.cfg.keepalive
        )

    def run(self) -> None:
        if self._foreign:
            super().run()
            return
        pool = Pool(self.worker_connections)
        servers = [self._listen(sock, pool) for sock in self.sockets]
        while self.alive:
            self.notify()
            self._stopping.wait(TICK)
            self._expire()

        process.draining = True
        sleep(LINGER)
        for server in servers:
            server.close()
        for connection in self._connections:
            get_hub().loop.run_callback(connection.drain)
        end = time.monotonic() + self.cfg.graceful_timeout
        while len(pool) and time.monotonic() < end:
            self.notify()
            pool.join(timeout=TICK)
            self._expire()
        if len(pool):
            self.log.warning("%d requests were not answered in time", len(pool))
            pool.kill(timeout=1.0)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection."""
        if self._foreign:
            super().handle(listener, client, addr)
            return
        connection = Connection(self, listener, client, addr)
        self._connections.add(connection)
        try:
            connection.serve()
        finally:
            self._connections.discard(connection)

    def template(self, client: Any, peer: Any, server: Any) -> lean.Template | None:
        """What the short way needs for a connection; None if it cannot be taken."""
        tcp = isinstance(peer, tuple) and isinstance(server, tuple)
        if not tcp or os.environ.get("SCRIPT_NAME"):
            return None
        trusted = message._ip_in_allow_list(
            peer[0], self.cfg.forwarded_allow_ips, self.cfg.forwarded_allow_networks()
        )
        return lean.Template(self.cfg, client, peer, server, trusted=trusted)

    def count_request(self) -> bool:
        """Count a request; whether its connection is to be closed after it."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
        return not self.alive

    def _listen(self, sock: Any, pool: Pool) -> StreamServer:
        sock.setblocking(1)
        server = StreamServer(
            sock, handle=lambda client, addr: self.handle(sock, client, addr), spawn=pool
        )
        if self.cfg.workers > 1:
            server.max_accept = 1  # leave the others some
        server.start()
        return server

    def _expire(self) -> None:
        now = time.monotonic()
        for connection in self._connections:
            if connection.deadline < now:
                get_hub().loop.run_callback(connection.expire)
