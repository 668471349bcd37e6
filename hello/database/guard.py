"""A guard of one database, which leaves it alone after a failure until it is back.

A greenlet opens connections, one at a time: how long an attempt may take does not depend on the
deadlines of the callers who wait for it. After an attempt that failed, every `connect` fails at
once, for the same reason, while the greenlet goes on trying, with a pause before each attempt,
until one succeeds. So a database that refuses or resets connections gets two or three attempts in a
second from each worker, however many requests come; and these get their 503 without waiting.
"""

import random
import time
from contextlib import suppress
from typing import Any, Generic

import gevent
from gevent.event import AsyncResult

from hello.database.session import AnyConnection, Connector
from hello.errors import DatabaseUnavailable, Misconfigured, SchemaOutdated, ServiceError

#: Seconds before the next attempt, at least and at most: drawn anew each time, so that workers
#: that lost the same database do not come back to it together.
PAUSE = (0.25, 0.75)


#: Seconds for which a connection is kept that came too late for the caller who waited for it.
SPARE_TERM = 5.0


class Guard(Generic[AnyConnection]):
    """A connector that all sessions of a worker with one database share. See `Connector`.

    A guard serves the greenlets of one thread.
    """

    def __init__(self, connector: Connector[AnyConnection]) -> None:
        self._connector = connector
        self._waiters: list[AsyncResult[AnyConnection]] = []
        self._at_work = False
        #: The error that `connect` raises at once; None while the database is not left alone.
        self._failure: DatabaseUnavailable | None = None
        #: A connection that came when no caller waited for it any more.
        self._spare: AnyConnection | None = None
        #: Whether the last attempt failed; one that found an outdated schema did not.
        self.failing = False

    def connect(self, deadline: float) -> AnyConnection:
        if self._failure is not None:
            raise _again(self._failure)
        if self._spare is not None:
            connection, self._spare = self._spare, None
            return connection
        waiter: AsyncResult[AnyConnection] = AsyncResult()
        self._waiters.append(waiter)
        if not self._at_work:
            self._at_work = True
            gevent.spawn(self._work)
        try:
            waiter.wait(max(0.0, deadline - time.monotonic()))
        except BaseException:
            self._leave(waiter)
            raise
        if not waiter.ready():
            self._leave(waiter)
            raise DatabaseUnavailable("the server did not accept a connection in time")
        opened: AnyConnection = waiter.get()
        return opened

    def _leave(self, waiter: "AsyncResult[AnyConnection]") -> None:
        with suppress(ValueError):
            self._waiters.remove(waiter)
            return
        if waiter.successful():
            self.keep(waiter.get())

    def _work(self) -> None:
        """Open connections while a caller waits for one, or the database is away."""
        try:
            while self._waiters or self._failure:
                if self._failure:
                    gevent.sleep(random.uniform(*PAUSE))
                self._attempt()
        finally:
            self._at_work = False

    def _attempt(self) -> None:
        try:
            # The connector has limits of its own for each step.
            connection = self._connector.connect(float("inf"))
        except Exception as ex:
            away = isinstance(ex, DatabaseUnavailable) and not isinstance(ex, Misconfigured)
            self._failure = _again(ex) if away else None
            self.failing = not isinstance(ex, SchemaOutdated)
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.set_exception(_again(ex))
        else:
            self._failure, self.failing = None, False
            self.keep(connection)

    def keep(self, connection: AnyConnection) -> None:
        """Give an open connection to a caller who waits for one, or keep it for SPARE_TERM."""
        if self._waiters:
            self._waiters.pop(0).set(connection)
        elif self._spare is None:
            self._spare = connection
            gevent.spawn_later(SPARE_TERM, self._let_go, connection)
        else:
            connection.close()

    def _let_go(self, connection: AnyConnection) -> None:
        if self._spare is connection:
            self._spare = None
            connection.close()


def _again(ex: Any) -> Any:
    """A copy of an error for another caller, since each caller adds to the traceback."""
    return type(ex)(*ex.args) if isinstance(ex, ServiceError) else ex
