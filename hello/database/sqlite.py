"""SQLite: in memory for development, or a file that several workers share."""

import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date
from typing import Any

import gevent
import msgspec
import peewee

from hello.database import schema, statements
from hello.database.models import Details, Record, records
from hello.errors import ConnectionBroken, DatabaseUnavailable, Rejected

#: Seconds between two tries while another process holds SQLite's write lock.
RETRY_INTERVAL = 0.005


class SQLiteConnection:
    """See `hello.database.session.DatabaseConnection`.

    SQLite answers within the call, so nothing here waits but for the write lock of
    another process, and that wait lets other greenlets run.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def find(self, names: Collection[str], deadline: float) -> dict[str, Record]:
        # SQLite is a library: one statement for many names is no faster than one for each.
        rows = (
            (name, date.fromisoformat(born), *columns)
            for asked in names
            for name, born, *columns in self._execute(statements.SQLITE.find, asked, deadline)
        )
        return records(names, rows)

    def save(self, details: Mapping[str, Details], deadline: float) -> dict[str, int]:
        # One statement, so that all dates are committed together.
        batch = msgspec.json.encode(details).decode()
        return dict(self._execute(statements.SQLITE.save, batch, deadline))

    def forget(self, names: Iterable[str], deadline: float) -> dict[str, bool]:
        batch = msgspec.json.encode(list(names)).decode()
        rows = self._execute(statements.SQLITE.forget, batch, deadline)
        return {name: True for name, _ in rows}

    def applied(self, deadline: float) -> list[str]:
        exists = "SELECT 1 FROM sqlite_master WHERE name = ?"
        if not self._execute(exists, schema.TABLE, deadline):
            return []
        rows = patiently(
            lambda: self._connection.execute(schema.SELECT_APPLIED).fetchall(), deadline
        )
        return [name for (name,) in rows]

    def prepare(self, deadline: float) -> None:
        pass  # the driver keeps prepared statements by itself

    def close(self) -> None:
        self._connection.close()

    def _execute(self, sql: str, parameter: str, deadline: float) -> list[Any]:
        rows: list[Any] = patiently(
            lambda: self._connection.execute(sql, (parameter,)).fetchall(), deadline
        )
        return rows


class SQLiteFile:
    """Opens a database file. See `hello.database.session.Connector`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def connect(self, deadline: float) -> SQLiteConnection:
        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
            try:
                # With `wal`, readers and a writer do not wait for each other; with `full`, a commit
                # is on the disk.
                connection.execute("PRAGMA journal_mode = wal")
                connection.execute("PRAGMA synchronous = full")
            except BaseException:
                connection.close()
                raise
            return connection

        return SQLiteConnection(patiently(connect, deadline))


class _SharedConnection(SQLiteConnection):
    """A connection that sessions cannot close: the database in memory would end with it."""

    def close(self) -> None:
        pass


class SQLiteMemory:
    """Opens a database in this process's memory, with the current schema."""

    def __init__(self) -> None:
        self._database = peewee.SqliteDatabase(":memory:")
        self._database.connect()
        schema.upgrade(self._database)
        self._connection = _SharedConnection(self._database.connection())

    def connect(self, _deadline: float) -> SQLiteConnection:
        return self._connection

    def close(self) -> None:
        """Forget the data."""
        self._database.close()


def patiently(call: Callable[[], Any], deadline: float) -> Any:
    """Call until the database is not locked.

    Raises Rejected, ConnectionBroken, or DatabaseUnavailable, also if it is locked at `deadline`.
    """
    while True:
        try:
            return call()
        except (sqlite3.DataError, sqlite3.IntegrityError, UnicodeEncodeError) as ex:
            raise Rejected("the database cannot store this value") from ex
        except sqlite3.Error as ex:
            code = getattr(ex, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_ERROR:
                # The statement does not fit this schema: a new connection is checked for that.
                raise ConnectionBroken(str(ex)) from ex
            if code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise DatabaseUnavailable(str(ex)) from ex
            gevent.sleep(RETRY_INTERVAL)
            # The request has given up: the call must not succeed after that.
            if time.monotonic() > deadline:
                raise DatabaseUnavailable("another process keeps the database locked") from ex
