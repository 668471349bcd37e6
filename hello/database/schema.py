"""The schema scripts in `hello/migrations` and the one safe way to run them.

The scripts are `playhouse.migrations` files: numbered, with `up` and `down`. The
table `schema_migration` records which were applied.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import peewee
from playhouse.migrations import Migration, Runner
from psycopg2.extensions import parse_dsn

from hello.errors import DatabaseUnavailable
from hello.uris import DatabaseURI

DIRECTORY = Path(__file__).parents[1] / "migrations"
TABLE = "schema_migration"
NAMES = tuple(migration.name for migration in Migration.load_directory(str(DIRECTORY)))

SELECT_APPLIED = f"SELECT name FROM {TABLE}"

#: The number of the advisory lock: "hello", which no other program should lock.
_LOCK = int.from_bytes(b"hello", "big")

#: SQLSTATE of a statement that does not run in a transaction, as DROP INDEX CONCURRENTLY.
_ACTIVE_SQL_TRANSACTION = "25001"

_KEEPALIVES = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",  # milliseconds
}

#: Messages of a server that cannot accept a connection now, and soon may. psycopg2 does not tell
#: the code of an error in connecting.
_PASSES = re.compile("starting up|shutting down|recovery mode|not yet accepting|too many|slots")


def pending(applied: Iterable[str]) -> list[str]:
    """The scripts of this release that are not among `applied`, in order.

    Scripts that only the database knows are those of a newer release; they do not
    matter, since every script must work with the release before it.
    """
    done = set(applied)
    return [name for name in NAMES if name not in done]


class Refused(DatabaseUnavailable):
    """The server is there, and lets nobody in with this URI."""


def connect(uri: DatabaseURI, timeout: float) -> peewee.Database:
    """A connected Peewee database for running scripts.

    `timeout`, in seconds, bounds the wait for a connection and for each lock.
    Raises DatabaseUnavailable, which is Refused if waiting would not help.
    """
    database: peewee.Database
    if uri.is_sqlite:
        database = peewee.SqliteDatabase(uri.sqlite_path, timeout=timeout)
    else:
        parameters = parse_dsn(uri.text)
        if "," in parameters.get("host", ""):
            parameters.setdefault("target_session_attrs", "read-write")
        parameters.setdefault("connect_timeout", str(max(2, int(timeout))))
        # A server that vanishes is noticed within a minute, also under a long statement.
        for name, value in _KEEPALIVES.items():
            parameters.setdefault(name, value)
        database = peewee.PostgresqlDatabase(parameters.pop("dbname", None) or "", **parameters)
    try:
        database.connect()
    except peewee.DatabaseError as ex:
        why = reason(ex)
        refused = "FATAL:" in why and not _PASSES.search(why)
        raise (Refused if refused else DatabaseUnavailable)(why) from ex
    return database


def reason(ex: peewee.PeeweeException) -> str:
    """What went wrong, in one line.

    The words are the server's primary message (its DETAIL quotes rows), or the driver's. What libpq
    says about connecting names hosts and users, never passwords.
    """
    diagnostics = getattr(getattr(ex, "orig", None), "diag", None)
    lines = [line for line in str(ex).splitlines() if line and not line.startswith("\t")]
    return getattr(diagnostics, "message_primary", None) or "; ".join(lines)


def _silent(what: str) -> None:
    pass


def upgrade(
    database: peewee.Database, *, wait: float = 60.0, say: Callable[[str], None] = _silent
) -> list[str]:
    """Apply every pending script; return the names of those applied.

    Several processes may do so at once: one works, the others wait up to `wait`
    seconds for it and then find nothing to do. `say` gets a line when there is something to wait
    for, and one before each script. Raises DatabaseUnavailable when the wait is over,
    playhouse.migrations.MigrationError for scripts that cannot be run, and
    peewee.DatabaseError from a failing script, whose own transaction is rolled back.
    """
    with _alone(database, wait, say):
        runner = _runner(database)
        names = [script.name for script in runner.status() if script.path and not script.applied]
        for name in names:
            say(f"applying {name}")
            runner.up(name)
        return names


def downgrade(
    database: peewee.Database,
    target: str | None = None,
    *,
    wait: float = 60.0,
    say: Callable[[str], None] = _silent,
) -> list[str]:
    """Revert the last script, or all back to and including `target`; see `upgrade`."""
    with _alone(database, wait, say):
        return list(_runner(database).down(target))


def losses(
    database: peewee.Database,
    target: str | None = None,
    *,
    wait: float = 60.0,
    say: Callable[[str], None] = _silent,
) -> list[str]:
    """The tables and columns with data that `downgrade` would drop, in words; see `upgrade`.

    A script does not tell: it is tried, in a transaction that is rolled back.
    """
    with _alone(database, wait, say):
        before = _columns(database)
        try:
            with database.atomic() as trial:
                _runner(database).down(target)
                after = _columns(database)
                trial.rollback()
        except peewee.InternalError as ex:
            if getattr(getattr(ex, "orig", None), "pgcode", None) != _ACTIVE_SQL_TRANSACTION:
                raise
            return ["perhaps more than can be told: a script does not run in a transaction"]
        lost = []
        for table, columns in before.items():
            if table not in after:
                lost.append((f"the table {table} with", _count(database, table, "*")))
                continue
            dropped = [column for column in columns if column not in after[table]]
            lost += [
                (f"the column {column} of the table {table} in", _count(database, table, column))
                for column in dropped
            ]
        return [f"{what} {count} row{'s' * (count != 1)}" for what, count in lost if count]


def _columns(database: peewee.Database) -> dict[str, list[str]]:
    """The columns of each table, but for the one of applied scripts."""
    return {
        table: [column.name for column in database.get_columns(table)]
        for table in database.get_tables()
        if table != TABLE
    }


def _count(database: peewee.Database, table: str, what: str) -> int:
    """The number of rows in which a column is not null; of all rows for `*`."""
    what = what if what == "*" else f'"{what}"'
    return int(database.execute_sql(f'SELECT count({what}) FROM "{table}"').fetchone()[0])


def applied(database: peewee.Database) -> list[str]:
    """The names of the applied scripts, in order."""
    return sorted(_runner(database).applied())


def _runner(database: peewee.Database) -> Runner:
    return Runner(database, str(DIRECTORY), TABLE)


@contextmanager
def _alone(database: peewee.Database, wait: float, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of migrations; raises DatabaseUnavailable after `wait` seconds."""
    if isinstance(database, peewee.SqliteDatabase):
        # SQLite may refuse a transaction that reads the table first and writes later, so this one
        # takes the write lock at its beginning.
        database.pragma("busy_timeout", int(wait * 1000))
        with ExitStack() as stack:
            try:
                stack.enter_context(database.atomic("IMMEDIATE"))
            except peewee.OperationalError as ex:
                raise DatabaseUnavailable(f"{ex} after {wait:g} s") from ex
            yield
        return
    # A script that waits for a lock blocks every query behind it: it gives up soon, changes
    # nothing, and can be run again.
    database.execute_sql("SET lock_timeout = '5s'")
    database.execute_sql("SET statement_timeout = '15min'")
    # pg_advisory_lock would deadlock: a session that waits in it holds a snapshot, and CREATE INDEX
    # CONCURRENTLY, in the process that works, waits for that snapshot.
    end = time.monotonic() + wait
    waiting = False
    while not database.execute_sql("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()[0]:
        if not waiting:
            say(f"waiting for another migration to end, at most {wait:g} s")
            waiting = True
        if time.monotonic() > end:
            raise DatabaseUnavailable(f"another migration holds the lock after {wait:g} s")
        time.sleep(0.1)
    try:
        yield
    finally:
        # The server frees the lock itself if the connection is gone.
        with suppress(peewee.InterfaceError, peewee.OperationalError):
            database.execute_sql("SELECT pg_advisory_unlock(%s)", (_LOCK,))
