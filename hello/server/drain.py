"""What happens from SIGTERM on: the worker ends, and loses no request.

`Worker.handle_exit` hears the signal. From then on `/health/ready` says "draining" and every answer
closes its connection. Then the worker

1. serves on for a moment: what was on its way when the signal came is accepted and answered;
2. closes the connections that are idle;
3. accepts what the kernel has completed meanwhile, which it would reset, and listens no more;
4. ends with the last answer, or cuts what is not answered when GRACEFUL_TIMEOUT is over.

gunicorn's own worker does the last alone, and waits for idle connections all the time.
"""

import time
from collections.abc import Callable, Iterable

from gevent import get_hub, sleep
from gevent.pool import Pool

from hello.lifecycle import process
from hello.server.connection import TICK, Context
from hello.server.listener import RETRY, Listener

#: Seconds for which the worker serves on.
SERVES_ON = 0.5

#: Seconds for which it tries to accept where there are no file descriptors.
TRIES_TO_ACCEPT = 2.0


class Drain:
    """Begins when it is made.

    `pool` has a greenlet for each connection. `tick` is what a worker does every TICK: it ends
    waits that take too long, and tells gunicorn's master that it lives. `seconds` are
    GRACEFUL_TIMEOUT.
    """

    def __init__(
        self, context: Context, pool: Pool, tick: Callable[[], None], seconds: float
    ) -> None:
        process.draining = True  # a worker ends without a signal, too
        self._room = context.room
        self._log = context.log
        self._pool = pool
        self._tick = tick
        self._end = time.monotonic() + seconds

    def run(self, listeners: Iterable[Listener]) -> None:
        """Return when the last request is answered or cut."""
        sleep(SERVES_ON)
        for connection in self._room:
            get_hub().loop.run_callback(connection.drain)
        for listener in listeners:
            self._accept_rest(listener)
            listener.close()
        while len(self._pool) and time.monotonic() < self._end:
            self._tick()
            self._pool.join(timeout=TICK)
        if len(self._pool):
            self._log.warning("%d requests were not answered in time", len(self._pool))
            self._pool.kill(timeout=1.0)

    def _accept_rest(self, listener: Listener) -> None:
        """Accept what the kernel has completed: it would be reset."""
        give_up = min(self._end, time.monotonic() + TRIES_TO_ACCEPT)
        while True:
            try:
                accepted = listener.accept()
            except OSError as ex:
                if time.monotonic() > give_up:
                    self._log.warning("connections are lost: %s", ex.strerror)
                    return
                self._tick()
                sleep(RETRY)  # idle connections are being closed, requests answered
                continue
            if not accepted:
                return
            if self._has_room():
                listener.do_handle(*accepted)
            else:
                accepted[0].close()

    def _has_room(self) -> bool:
        """Wait until one more connection can be served, while idle ones are being closed."""
        while self._pool.full() and time.monotonic() < self._end:
            self._tick()
            self._pool.wait_available(TICK)
        return not self._pool.full()
