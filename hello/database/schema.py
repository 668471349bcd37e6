"""The schema scripts in `hello/migrations` and the one safe way to run them.

The scripts are `playhouse.migrations` files: numbered, with `up` and `down`. The
table `schema_migration` records which were applied.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import peewee
from playhouse.migrations import Migration, Runner
from psycopg2 import errors
from psycopg2.extensions import parse_dsn

from hello.database import engine
from hello.database.engine import Engine
from hello.errors import DatabaseUnavailable
from hello.uris import DatabaseURI

DIRECTORY = Path(__file__).parents[1] / "migrations"
TABLE = "schema_migration"
#: The table whose one row is locked by whoever migrates, on engines without advisory locks.
LOCK_TABLE = "schema_lock"
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


class PostgreSQLDatabase(peewee.PostgresqlDatabase):
    """A database of PostgreSQL's protocol that remembers which engine it is."""

    engine: Engine | None = None


class Refused(DatabaseUnavailable):
    """The server is there, and lets nobody in with this URI."""


def connect(uri: DatabaseURI, timeout: float, known: Engine | None = None) -> peewee.Database:
    """A connected Peewee database for running scripts.

    `timeout`, in seconds, bounds the wait for a connection and for each lock. `known` is the
    engine; None if it is to be found out.
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
        database = PostgreSQLDatabase(parameters.pop("dbname", None) or "", **parameters)
        database.engine = known
    _connect(database)
    try:
        if not uri.is_sqlite:
            _refuse_shared_sessions(database)
    except (peewee.InterfaceError, peewee.OperationalError) as ex:
        raise DatabaseUnavailable(reason(ex)) from ex
    return database


def _connect(database: peewee.Database) -> None:
    try:
        database.connect()
    except peewee.DatabaseError as ex:
        why = reason(ex)
        refused = "FATAL:" in why and not _PASSES.search(why)
        raise (Refused if refused else DatabaseUnavailable)(why) from ex


def _another(database: peewee.Database) -> peewee.Database:
    """A second connection to the database, which is PostgreSQL's or another's of its protocol."""
    another = PostgreSQLDatabase(database.database, **database.connect_params)
    _connect(another)
    return another


def _refuse_shared_sessions(database: peewee.Database) -> None:
    """Raise Refused if a pooler shares sessions: a lock of a session would keep nobody out."""
    if _process(database) == database.connection().get_backend_pid():
        return
    with closing(_another(database)) as another:
        if engine.shares_sessions(lambda: _process(database), lambda: _process(another)):
            raise Refused(engine.POOLER_SHARES_SESSIONS.format("DB_URI"))


def _process(database: peewee.Database) -> int:
    return int(database.execute_sql(engine.SELECT_PROCESS).fetchone()[0])


def engine_of(database: peewee.Database) -> Engine | None:
    """The engine on which scripts run; None for SQLite."""
    if isinstance(database, peewee.SqliteDatabase):
        return None
    known: Engine | None = getattr(database, "engine", None)
    if known is None:
        known = engine.identify(*database.execute_sql(f"SELECT {engine.QUESTION}").fetchone())
        if isinstance(database, PostgreSQLDatabase):
            database.engine = known
    return known


def reason(ex: peewee.PeeweeException) -> str:
    """What went wrong, in one line.

    The words are the server's primary message (its DETAIL quotes rows), or the driver's. What libpq
    says about connecting names hosts and users, never passwords.
    """
    diagnostics = getattr(_cause(ex), "diag", None)
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
        if not _can_roll_back(database):
            return ["perhaps more than can be told: this engine cannot try it and roll it back"]
        before = _columns(database)
        try:
            with database.atomic() as trial:
                _runner(database).down(target)
                after = _columns(database)
                trial.rollback()
        except peewee.InternalError as ex:
            if getattr(_cause(ex), "pgcode", None) != _ACTIVE_SQL_TRANSACTION:
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
        if table not in (TABLE, LOCK_TABLE)
    }


def _count(database: peewee.Database, table: str, what: str) -> int:
    """The number of rows in which a column is not null; of all rows for `*`."""
    what = what if what == "*" else f'"{what}"'
    return int(database.execute_sql(f'SELECT count({what}) FROM "{table}"').fetchone()[0])


def applied(database: peewee.Database) -> list[str]:
    """The names of the applied scripts, in order."""
    return sorted(_runner(database).applied())


def _runner(database: peewee.Database) -> Runner:
    runner = Runner(database, str(DIRECTORY), TABLE)
    # Where not, each statement of a script commits on its own.
    runner.migrator.transactional_ddl = _can_roll_back(database)
    return runner


def _can_roll_back(database: peewee.Database) -> bool:
    """Whether a transaction may hold a script."""
    known = engine_of(database)
    return known is None or known.has_transactional_ddl


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
    known = engine_of(database)
    lock = _advisory_lock if known is None or known.has_advisory_locks else _row_lock
    with lock(database, lambda locked: _try(locked, wait, say)):
        yield


def _try(locked: Callable[[], bool], wait: float, say: Callable[[str], None]) -> None:
    """Try to lock until it is done; raises DatabaseUnavailable after `wait` seconds."""
    end = time.monotonic() + wait
    waiting = False
    while not locked():
        if not waiting:
            say(f"waiting for another migration to end, at most {wait:g} s")
            waiting = True
        if time.monotonic() > end:
            raise DatabaseUnavailable(f"another migration holds the lock after {wait:g} s")
        time.sleep(0.1)


#: Calls what tries to lock until it returns true.
_Try = Callable[[Callable[[], bool]], None]


@contextmanager
def _advisory_lock(database: peewee.Database, try_until: _Try) -> Iterator[None]:
    # pg_advisory_lock would deadlock: a session that waits in it holds a snapshot, and CREATE INDEX
    # CONCURRENTLY, in the process that works, waits for that snapshot.
    sql = "SELECT pg_try_advisory_lock(%s)"
    try_until(lambda: bool(database.execute_sql(sql, (_LOCK,)).fetchone()[0]))
    try:
        yield
    finally:
        # The server frees the lock itself if the connection is gone.
        with suppress(peewee.InterfaceError, peewee.OperationalError):
            database.execute_sql("SELECT pg_advisory_unlock(%s)", (_LOCK,))


@contextmanager
def _row_lock(database: peewee.Database, try_until: _Try) -> Iterator[None]:
    """Lock the row in a connection of its own, since scripts have transactions of their own.

    The end of that connection, however it comes, gives the row back.
    """
    with closing(_another(database)) as holder:
        try:
            holder.execute_sql(
                f"CREATE TABLE IF NOT EXISTS {LOCK_TABLE}"
                " (id integer PRIMARY KEY, holder integer NOT NULL)"
            )
        except peewee.DatabaseError as ex:
            # Another migration has created it at the same moment.
            if not isinstance(_cause(ex), errors.UniqueViolation | errors.DuplicateTable):
                raise
        holder.execute_sql(f"INSERT INTO {LOCK_TABLE} VALUES (1, 0) ON CONFLICT (id) DO NOTHING")
        holder.execute_sql("SET idle_in_transaction_session_timeout = 0")
        try_until(lambda: _locked(holder))
        yield


def _locked(holder: peewee.Database) -> bool:
    holder.execute_sql("BEGIN")
    try:
        holder.execute_sql(f"SELECT 1 FROM {LOCK_TABLE} WHERE id = 1 FOR UPDATE NOWAIT")
        # A row that was written is held for sure, where one that was read may be given back.
        holder.execute_sql(f"UPDATE {LOCK_TABLE} SET holder = pg_backend_pid() WHERE id = 1")
    except peewee.DatabaseError as ex:
        holder.execute_sql("ROLLBACK")
        if isinstance(_cause(ex), errors.LockNotAvailable):
            return False
        raise
    return True


def _cause(ex: peewee.PeeweeException) -> object:
    """The driver's error."""
    return getattr(ex, "orig", None)
