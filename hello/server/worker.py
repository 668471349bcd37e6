"""gunicorn's gevent worker, with a short way for plain requests and a drain that loses nothing.

On SIGTERM the worker goes on accepting for a moment, so that connections which the kernel
has completed are served; every answer then closes its connection; idle connections are
closed; the worker ends with the last answer. gunicorn waits for idle connections until
`graceful_timeout`.
"""

import os
import resource
import time
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any

import gevent
from gevent import get_hub, monkey, sleep
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.http import message, wsgi
from gunicorn.workers.ggevent import GeventWorker

from hello.lifecycle import process
from hello.server import fallback, parser
from hello.server.connection import Connection
from hello.server.room import Room
from hello.settings import Settings
from hello.telemetry import logs, metrics
from hello.telemetry.admin import Admin

#: Seconds for which a draining worker still accepts, and answers on connections that
#: are idle: requests that were on their way when SIGTERM came.
LINGER = 0.5

#: Seconds between two looks at the deadlines of connections.
TICK = 0.5

#: File descriptors that a worker needs beside those of its clients.
OWN_FILES = 128

#: Bytes that the kernel keeps of answers that a client does not read; Linux doubles it. The
#: longest answers are not much longer, and 4 MiB for each connection would be too much.
SEND_BUFFER = 32 * 1024

#: Errors that say that there is no room for another connection.
_EXHAUSTED = (EMFILE, ENFILE, ENOBUFS, ENOMEM)


class _Listener(StreamServer):  # type: ignore[misc]
    """Accepts connections while there are file descriptors for them."""

    def __init__(self, sock: Any, worker: "Worker", pool: Pool) -> None:
        # Asked once: the socket may be closed before its last connection is served.
        name = sock.getsockname()
        super().__init__(
            sock, handle=lambda client, peer: worker.serve(client, peer, name), spawn=pool
        )
        self._worker = worker

    def accept(self) -> Any:
        """A connection and its peer, None if nobody waits; raises OSError."""
        return super().do_read()

    def do_read(self) -> Any:
        """Called by gevent when somebody waits."""
        try:
            return self.accept()
        except OSError as ex:
            if ex.errno not in _EXHAUSTED:
                raise
            self._worker.room.make(f"connections cannot be accepted: {ex.strerror}")
            self.stop_accepting()
            gevent.spawn_later(TICK / 10, self._go_on)
            return None

    def _go_on(self) -> None:
        if self.started:
            self.start_accepting()


class Worker(GeventWorker):  # type: ignore[misc]
    alive: bool
    worker_connections: int
    #: Set before the fork (hello/server/configuration.py), unless there is no admin port.
    admin: Admin | None = None
    slot: int | None = None

    def init_process(self) -> None:
        if not monkey.is_module_patched("socket"):
            raise RuntimeError("start gunicorn with -c python:hello.server, which patches first")
        if not parser.AVAILABLE:
            self.log.warning("httptools cannot be imported: every request takes the long way")
        wsgi.Response = fallback.Response
        settings = Settings.of_the_start()
        self.worker_connections = self._with_files(self.worker_connections)
        # Asked for every request; gunicorn's own look-up takes a while.
        self.keepalive = self.cfg.keepalive
        self.head_timeout = settings.head_timeout
        self.body_timeout = settings.body_timeout
        self._graceful_timeout = settings.graceful_timeout
        self._stopping = Event()
        self._quitting = False
        self.room: Room[Connection] = Room(self.worker_connections, self.log.warning)
        self._warn_of_refusal = logs.Seldom(self.log.warning)
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

    def run(self) -> None:
        get_hub().print_exception = logs.report
        if self.admin is not None:
            self.admin.start(self.slot)
            process.at_end.append(self.admin.publish)
        try:
            self._run()
        finally:
            for call in process.at_end:
                call()

    def _run(self) -> None:
        pool = Pool(Room.size(self.worker_connections))
        servers = [self._listen(sock, pool) for sock in self.sockets]
        while self.alive:
            self.notify()
            self._stopping.wait(TICK)
            self._expire()
            self.room.keep_to_limit()

        process.draining = True  # also if not by a signal
        end = time.monotonic() + self._graceful_timeout
        sleep(LINGER)
        for connection in self.room:
            get_hub().loop.run_callback(connection.drain)
        for server in servers:
            self._accept_rest(server, pool, end)
            server.close()
        while len(pool) and time.monotonic() < end:
            self.notify()
            pool.join(timeout=TICK)
            self._expire()
        if len(pool):
            self.log.warning("%d requests were not answered in time", len(pool))
            pool.kill(timeout=1.0)

    def refuse(self, peer: Any, ex: Exception) -> bytes:
        """What to answer to what is no HTTP, or if there is a defect: see `hello.server.refusals`.

        gunicorn's own page and log line quote the request, and with it personal data.
        """
        # The master imports this module, and has no use for all of the application.
        from hello.server import refusals

        status = refusals.status(ex)
        metrics.refused(status)
        if status == 500:
            self.log.error("defect while answering a request", exc_info=ex)
        else:
            who = peer[0] if isinstance(peer, tuple) else "a client"
            self._warn_of_refusal(f"refused what {who} sent: {type(ex).__name__}")
        return refusals.answer(ex)

    def template(self, client: Any, peer: Any, server: Any) -> parser.Template | None:
        """What the short way needs for a connection; None if it cannot be taken."""
        tcp = isinstance(peer, tuple) and isinstance(server, tuple)
        if not (tcp and parser.AVAILABLE) or os.environ.get("SCRIPT_NAME"):
            return None
        trusted = message._ip_in_allow_list(
            peer[0], self.cfg.forwarded_allow_ips, self.cfg.forwarded_allow_networks()
        )
        return parser.Template(self.cfg, client, peer, server, trusted=trusted)

    def count_request(self) -> None:
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False

    def serve(self, client: Any, peer: Any, server: Any) -> None:
        """Serve one connection."""
        connection = Connection(self, client, peer, server)
        self.room.add(connection)
        try:
            connection.serve()
        finally:
            self.room.discard(connection)

    def _with_files(self, limit: int) -> int:
        """For how many connections there are file descriptors, if need be by a higher limit."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = Room.size(limit) + OWN_FILES
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return limit
        if hard == resource.RLIM_INFINITY or hard >= wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        while limit > 1 and Room.size(limit) + OWN_FILES > hard:
            limit -= 1
        self.log.warning("RLIMIT_NOFILE is %d: at most %d connections", hard, limit)
        return limit

    def _listen(self, sock: Any, pool: Pool) -> _Listener:
        sock.setblocking(1)
        sock.setsockopt(SOL_SOCKET, SO_SNDBUF, SEND_BUFFER)  # connections inherit it
        server = _Listener(sock, self, pool)
        if self.cfg.workers > 1:
            server.max_accept = 1  # leave the others some
        server.start()
        return server

    def _accept_rest(self, server: _Listener, pool: Pool, end: float) -> None:
        """Accept what the kernel has completed: it would be reset."""
        patience = min(end, time.monotonic() + 4 * LINGER)
        while True:
            try:
                accepted = server.accept()
            except OSError as ex:
                if time.monotonic() > patience:
                    self.log.warning("connections are lost: %s", ex.strerror)
                    return
                self.notify()
                sleep(TICK / 10)  # idle connections are being closed, requests answered
                continue
            if not accepted:
                return
            if self._has_room(pool, end):
                server.do_handle(*accepted)
            else:
                accepted[0].close()

    def _has_room(self, pool: Pool, end: float) -> bool:
        """Wait until one more connection can be served, while idle ones are being closed."""
        while pool.full() and time.monotonic() < end:
            self.notify()
            pool.wait_available(TICK)
            self._expire()
        return not pool.full()

    def _expire(self) -> None:
        now = time.monotonic()
        for connection in self.room:
            if connection.deadline < now:
                get_hub().loop.run_callback(connection.expire)
