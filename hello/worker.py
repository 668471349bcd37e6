"""gunicorn's gevent worker, with a short way for plain requests and a drain that loses nothing.

On SIGTERM the worker goes on accepting for a moment, so that connections which the kernel
has completed are served; every answer then closes its connection; idle connections are
closed; the worker ends with the last answer. gunicorn waits for idle connections until
`graceful_timeout`.
"""

import os
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from gevent import get_hub, monkey, sleep
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http import errors, message, wsgi
from gunicorn.workers.ggevent import GeventWorker

from hello import lean, logs, stock, telemetry
from hello.admin import Admin
from hello.connection import Connection
from hello.lifecycle import process
from hello.settings import Settings

#: Seconds for which a draining worker still accepts, and answers on connections that
#: are idle: requests that were on their way when SIGTERM came.
LINGER = 0.5

#: What is not answered by 400.
_REFUSALS = {
    errors.LimitRequestLine: 414,
    errors.LimitRequestHeaders: 431,
    errors.ExpectationFailed: 417,
}

#: Defects of the application, for all that gunicorn counts them among wrong requests.
_DEFECTS = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)

#: Seconds between two looks at the deadlines of connections.
TICK = 0.5


class Worker(GeventWorker):  # type: ignore[misc]
    alive: bool
    #: Set before the fork (hello/server.py), unless there is no admin port.
    admin: Admin | None = None
    slot: int | None = None

    def init_process(self) -> None:
        if not monkey.is_module_patched("socket"):
            raise RuntimeError("start gunicorn with -c python:hello.server, which patches first")
        if not lean.AVAILABLE:
            self.log.warning("httptools cannot be imported: every request takes the long way")
        wsgi.Response = stock.Response
        settings = Settings.load()
        # Asked for every request; gunicorn's own look-up takes a while.
        self.keepalive = self.cfg.keepalive
        self.head_timeout = settings.head_timeout
        self.body_timeout = settings.body_timeout
        self._graceful_timeout = settings.graceful_timeout
        self._stopping = Event()
        self._quitting = False
        self._connections: set[Connection] = set()
        super().init_process()

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        process.draining = True
        self._stopping.set()

    def handle_quit(self, sig: int, frame: Any) -> None:
        # A terminal sends Ctrl-C to everybody, and then the master asks once more.
        if not self._quitting:
            self._quitting = True
            super().handle_quit(sig, frame)

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
        get_hub().print_exception = logs.report
        if self.admin is not None:
            self.admin.start(self.slot)
            process.at_end.append(self.admin.publish)
        try:
            if self._foreign:
                super().run()
            else:
                self._run()
        finally:
            for call in process.at_end:
                call()

    def _run(self) -> None:
        pool = Pool(self.worker_connections)
        servers = [self._listen(sock, pool) for sock in self.sockets]
        while self.alive:
            self.notify()
            self._stopping.wait(TICK)
            self._expire()

        process.draining = True  # also if not by a signal
        end = time.monotonic() + self._graceful_timeout
        sleep(LINGER)
        for connection in self._connections:
            get_hub().loop.run_callback(connection.drain)
        for server in servers:
            # What the kernel has accepted would be reset.
            while accepted := server.do_read():
                if self._has_room(pool, end):
                    server.do_handle(*accepted)
                else:
                    accepted[0].close()
            server.close()
        while len(pool) and time.monotonic() < end:
            self.notify()
            pool.join(timeout=TICK)
            self._expire()
        if len(pool):
            self.log.warning("%d requests were not answered in time", len(pool))
            pool.kill(timeout=1.0)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Refuse what is no HTTP with a plain page.

        gunicorn's own page and log line quote the request, and with it personal data.
        """
        if not isinstance(exc, errors.ParseException) or isinstance(exc, _DEFECTS):
            telemetry.refused(500)
            super().handle_error(req, client, addr, exc)
            return
        status = HTTPStatus(_REFUSALS.get(type(exc), 400))
        telemetry.refused(status)
        self.log.warning("refused what %s sent: %s", addr[0], type(exc).__name__)
        with suppress(OSError):
            util.write_error(client, status.value, status.phrase, "")

    def template(self, client: Any, peer: Any, server: Any) -> lean.Template | None:
        """What the short way needs for a connection; None if it cannot be taken."""
        tcp = isinstance(peer, tuple) and isinstance(server, tuple)
        if not (tcp and lean.AVAILABLE) or os.environ.get("SCRIPT_NAME"):
            return None
        trusted = message._ip_in_allow_list(
            peer[0], self.cfg.forwarded_allow_ips, self.cfg.forwarded_allow_networks()
        )
        return lean.Template(self.cfg, client, peer, server, trusted=trusted)

    def count_request(self) -> None:
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False

    def _listen(self, sock: Any, pool: Pool) -> StreamServer:
        sock.setblocking(1)
        # Asked once: the socket may be closed before its last connection is served.
        name = sock.getsockname()
        server = StreamServer(
            sock, handle=lambda client, peer: self._serve(client, peer, name), spawn=pool
        )
        if self.cfg.workers > 1:
            server.max_accept = 1  # leave the others some
        server.start()
        return server

    def _serve(self, client: Any, peer: Any, server: Any) -> None:
        """Serve one connection."""
        connection = Connection(self, client, peer, server)
        self._connections.add(connection)
        try:
            connection.serve()
        finally:
            self._connections.discard(connection)

    def _has_room(self, pool: Pool, end: float) -> bool:
        """Wait until one more connection can be served, while idle ones are being closed."""
        while pool.full() and time.monotonic() < end:
            self.notify()
            pool.wait_available(TICK)
            self._expire()
        return not pool.full()

    def _expire(self) -> None:
        now = time.monotonic()
        for connection in self._connections:
            if connection.deadline < now:
                get_hub().loop.run_callback(connection.expire)
