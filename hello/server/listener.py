"""Accepts the connections of clients, while there are file descriptors for them."""

from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer

from hello.server.connection import Connection, Context

#: Seconds between two tries to accept, when there is no room for another connection.
RETRY = 0.05

#: Bytes that the kernel keeps of answers that a client does not read; Linux doubles it. The
#: longest answers are not much longer, and 4 MiB for each connection would be too much.
SEND_BUFFER = 32 * 1024

#: Errors that say that there is no room for another connection.
_EXHAUSTED = (EMFILE, ENFILE, ENOBUFS, ENOMEM)


class Listener(StreamServer):  # type: ignore[misc]
    """Serves the connections to one socket, each in a greenlet of `pool`."""

    def __init__(self, sock: Any, context: Context, pool: Pool) -> None:
        super().__init__(sock, spawn=pool)
        self._context = context
        # Asked once: the socket may be closed before its last connection is served.
        self._name = sock.getsockname()
        sock.setblocking(1)
        sock.setsockopt(SOL_SOCKET, SO_SNDBUF, SEND_BUFFER)  # connections inherit it
        if context.cfg.workers > 1:
            self.max_accept = 1  # leave the others some

    def accept(self) -> Any:
        """A connection's socket and its client's address, None if nobody waits; raises OSError."""
        return super().do_read()

    def do_read(self) -> Any:
        """Called by gevent when somebody waits."""
        try:
            return self.accept()
        except OSError as ex:
            if ex.errno not in _EXHAUSTED:
                raise
            self._context.room.make(f"connections cannot be accepted: {ex.strerror}")
            self.stop_accepting()
            gevent.spawn_later(RETRY, self._go_on)
            return None

    def handle(self, client: Any, peer: Any) -> None:
        """Called by gevent in a greenlet of the connection's own."""
        room = self._context.room
        connection = Connection(self._context, client, peer, self._name)
        room.add(connection)
        try:
            connection.serve()
        finally:
            room.discard(connection)

    def _go_on(self) -> None:
        if self.started:
            self.start_accepting()
