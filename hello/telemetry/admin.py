"""The admin port: the figures of all workers, and liveness, for those who operate the service.

Clients of the service cannot reach the port, and so cannot fill it with their connections.

The master opens the port, and every worker answers on it. So it survives the death of any worker,
needs no process of its own, and ends with the service. See docs/decisions/telemetry.md.
"""

import logging
import os
from collections.abc import Iterable
from typing import Any

import gevent
from gevent import pywsgi, socket

from hello.telemetry import metric_types, metrics
from hello.telemetry.metric_types import Snapshot
from hello.telemetry.shared import Board

log = logging.getLogger(__name__)

#: Seconds that a client of the admin port has for a request and its answer.
REQUEST_TIMEOUT = 10.0

#: Seconds between two times that a worker shows its figures. A worker that is killed loses what it
#: counted in so many seconds, at most.
INTERVAL = 1.0


class _Handler(pywsgi.WSGIHandler):  # type: ignore[misc]
    """The handler of a connection, which ends if a request and its answer take REQUEST_TIMEOUT."""

    def handle_one_request(self) -> Any:
        with gevent.Timeout(REQUEST_TIMEOUT, False):
            return super().handle_one_request()
        return None


def _listen(host: str, port: int) -> Any:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


class Admin:
    """The admin port, made in the master. Raises OSError if the address cannot be had.

    `workers` is the number of workers; after a reload there are twice as many for a while.
    `inherited` is the file descriptor of the socket that another master opened, if there is one.
    """

    def __init__(self, host: str, port: int, workers: int, inherited: int | None = None) -> None:
        self._listener: Any = (
            _listen(host, port) if inherited is None else socket.socket(fileno=inherited)
        )
        self.port: int = self._listener.getsockname()[1]
        self._board = Board(2 * workers + 16)
        #: The slot of this worker.
        self._slot: int | None = None

    def fileno(self) -> int:
        return int(self._listener.fileno())

    def before_fork(self) -> int | None:
        """Choose a slot for the next worker. For the master."""
        return self._board.reserve()

    def after_exit(self, slot: int | None) -> None:
        """Free the slot of a worker that is gone. For the master."""
        if slot is not None:
            self._board.release(slot)

    def start(self, slot: int | None) -> None:
        """Begin to answer, and to show this worker's figures. For a worker."""
        # Imported in workers alone: the master imports this module, and has no use for Falcon.
        from hello.telemetry.exposition import create_admin_app

        self._slot = slot
        if slot is None:
            log.warning("no room for the figures of this worker: they are not shown")
        else:
            metric_types.restore(self._board.read(slot)[1])
            self.publish()
            gevent.spawn(self._publish_for_ever)
        listener = socket.socket(
            self._listener.family, socket.SOCK_STREAM, fileno=self._listener.detach()
        )
        app = create_admin_app(self._read, os.environ.get("REVISION") or "unknown")
        pywsgi.WSGIServer(listener, app, log=None, error_log=None, handler_class=_Handler).start()

    def publish(self) -> None:
        """Show this worker's figures as they are now."""
        if self._slot is not None:
            self._board.write(self._slot, metrics.snapshot())

    def _publish_for_ever(self) -> None:
        while True:
            gevent.sleep(INTERVAL)
            self.publish()

    def _read(self) -> Iterable[tuple[bool, Snapshot]]:
        self.publish()
        return self._board.read_all()
