"""gunicorn's gevent worker, with a short way for plain requests and a drain that loses nothing.

The short way begins in `hello.server.connection`, the drain is `hello.server.drain`.
"""

import gc
import os
import resource
import time
from typing import Any

from gevent import get_hub
from gevent.event import Event
from gevent.pool import Pool
from gunicorn.http import message, wsgi
from gunicorn.workers.ggevent import GeventWorker

from hello.lifecycle import process
from hello.server import fallback
from hello.server.connection import TICK, Connection, Context
from hello.server.drain import Drain
from hello.server.listener import Listener
from hello.server.parser import HeadParser
from hello.server.room import Room
from hello.settings import Settings
from hello.telemetry import logs, metrics
from hello.telemetry.admin import Admin

#: File descriptors that a worker needs beside those of its clients.
OWN_FILES = 128

#: Objects that may be new before Python looks for garbage among them. Requests leave hardly any,
#: but each makes some thirty objects, and many are at work at a time: with Python's 700, the same
#: objects would be looked at again and again.
GC_THRESHOLD = 20_000


def no_head_parser(_client: Any, _peer: Any, _server: Any) -> None:
    """With HTTP_SHORT_WAY=off no request is plain: all go gunicorn's own way."""


class Worker(GeventWorker):  # type: ignore[misc]
    alive: bool
    worker_connections: int
    #: Set before the fork (hello/server/configuration.py), unless there is no admin port.
    admin: Admin | None = None
    slot: int | None = None

    def init_process(self) -> None:
        # Whoever has a configuration of their own on top of this one may replace some of its hooks.
        hooks = (self.cfg.on_starting, self.cfg.pre_fork, self.cfg.pre_request)
        if not any(hook.__module__ == "hello.server.configuration" for hook in hooks):
            raise RuntimeError("start gunicorn with -c python:hello.server")
        # gunicorn's handle_request makes an answer of the class that it finds there.
        wsgi.Response = fallback.Response
        self.worker_connections = self._with_files(self.worker_connections)
        self._stopping = Event()
        self._quitting = False
        self._warn_of_refusal = logs.Seldom(self.log.warning)
        super().init_process()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to end, at SIGTERM: see `hello.server.drain`."""
        super().handle_exit(sig, frame)
        process.draining = True
        self._stopping.set()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """End at once, at SIGQUIT or SIGINT."""
        # A terminal sends Ctrl-C to everybody, and then the master asks once more.
        if not self._quitting:
            self._quitting = True
            super().handle_quit(sig, frame)

    def run(self) -> None:
        """Serve until the worker is to end, and has drained."""
        get_hub().print_exception = logs.report
        metrics.DRAINING.labels().watch(lambda: process.draining)
        settings = Settings.of_the_start()
        room: Room[Connection] = Room(self.worker_connections, self.log.warning)
        context = self._context(settings, room)
        if self.admin is not None:
            self.admin.start(self.slot)
            process.at_end.append(self.admin.publish)
        try:
            self._serve(context, settings.graceful_timeout)
        finally:
            for call in process.at_end:
                call()

    def _context(self, settings: Settings, room: Room[Connection]) -> Context:
        return Context(
            app=self.wsgi,
            cfg=self.cfg,
            log=self.log,
            room=room,
            head_timeout=settings.head_timeout,
            body_timeout=settings.body_timeout,
            keepalive=self.cfg.keepalive,
            is_ending=lambda: not self.alive,
            count_request=self._count_request,
            handle_request=self.handle_request,
            refuse=self._refuse,
            head_parser=self.head_parser if settings.http_short_way else no_head_parser,
        )

    def _serve(self, context: Context, graceful_timeout: float) -> None:
        # What lives by now lives as long as the worker: Python need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        pool = Pool(Room.size(self.worker_connections))
        listeners = [Listener(sock, context, pool) for sock in self.sockets]
        for listener in listeners:
            listener.start()

        def tick() -> None:
            self.notify()
            now = time.monotonic()
            for connection in context.room:
                if connection.deadline < now:
                    get_hub().loop.run_callback(connection.expire)

        while self.alive:
            tick()
            context.room.keep_to_limit()
            self._stopping.wait(TICK)
        Drain(context, pool, tick, graceful_timeout).run(listeners)

    def head_parser(self, client: Any, peer: Any, server: Any) -> HeadParser | None:
        """What parses the heads of a connection; None if none of its requests can be plain."""
        tcp = isinstance(peer, tuple) and isinstance(server, tuple)
        if not tcp or os.environ.get("SCRIPT_NAME"):
            return None
        trusted = message._ip_in_allow_list(
            peer[0], self.cfg.forwarded_allow_ips, self.cfg.forwarded_allow_networks()
        )
        return HeadParser(self.cfg, client, peer, server, trusted=trusted)

    def _refuse(self, peer: Any, ex: Exception) -> bytes:
        """The answer to what is no HTTP, or to a defect: see `hello.server.refusals`.

        gunicorn's own page and log line quote the request, and with it personal data.
        """
        # gunicorn's master imports this module, and must not import Falcon: see hello.server.
        from hello.server import refusals

        status = refusals.status(ex)
        metrics.refused(status)
        if status == 500:
            self.log.error("defect while answering a request", exc_info=ex)
        else:
            who = peer[0] if isinstance(peer, tuple) else "a client"
            self._warn_of_refusal(f"refused what {who} sent: {type(ex).__name__}")
        return refusals.answer(ex)

    def _count_request(self) -> None:
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False

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
