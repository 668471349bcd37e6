"""The service without its batches: every request runs a statement of its own."""

from datetime import date
from time import monotonic

from gevent.queue import LifoQueue

from hello.app import create_app
from hello.database.models import Record
from hello.database.postgresql import PostgreSQL
from hello.database.session import CurrentSchema, Session
from hello.settings import Settings
from hello.usernames import Usernames

#: In each direction.
SESSIONS = 32


class Unbatched:
    """In the place of `hello.users.Users`."""

    def __init__(self, connector: PostgreSQL, timeout: float) -> None:
        self._timeout = timeout
        # The connection that was used last is the one whose memory is warm.
        self._readers, self._writers = LifoQueue(), LifoQueue()
        for _ in range(SESSIONS):
            self._readers.put(Session(CurrentSchema(connector)).find)
            self._writers.put(Session(CurrentSchema(connector)).save)

    def find(self, username: str) -> Record:
        return self._run(self._readers, username, None, self._timeout)

    def save(self, username: str, date_of_birth: date) -> None:
        self._run(self._writers, username, date_of_birth, self._timeout)

    def ping(self, timeout: float) -> None:
        self._run(self._readers, "", None, timeout)

    @staticmethod
    def _run(lanes: LifoQueue, key: str, value: date | None, timeout: float):
        deadline = monotonic() + timeout
        lane = lanes.get(timeout=timeout)
        try:
            return lane({key: value}, deadline).get(key)
        finally:
            lanes.put(lane)


def wsgi():
    settings = Settings.load()
    connector = PostgreSQL(
        lambda: settings.db_uri.text,
        connect_timeout=settings.connect_timeout,
        statement_timeout=settings.statement_timeout,
    )
    return create_app(
        Unbatched(connector, settings.request_timeout),
        usernames=Usernames(settings.username_pattern),
        time_zone=settings.time_zone,
    )
