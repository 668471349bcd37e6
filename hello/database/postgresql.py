"""PostgreSQL through psycopg2 under gevent, with an end to every wait.

psycopg2 waits for the network in a callback. The callback here lets other greenlets run and
gives up at the connection's deadline. libpq does not apply its own `connect_timeout` to
connections opened this way, and its name resolution would stop the whole process; so
hosts are resolved here, and tried one address at a time.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from datetime import datetime, timedelta
from math import inf
from typing import Any, NamedTuple

import psycopg2
from gevent import get_hub, getcurrent
from gevent.socket import wait_read, wait_write
from psycopg2 import errors, extensions

from hello import resolver
from hello.database import engine, schema, statements
from hello.database.engine import Engine
from hello.database.models import CacheStanding, Details, Generation, Record, records
from hello.errors import ConnectionBroken, DatabaseUnavailable, OutcomeUnknown, Rejected, Unfit

#: Parameters for libpq, which those in the URI override.
DEFAULTS = {
    "application_name": "hello",
    "client_encoding": "UTF8",
    # Asking for Kerberos first costs a round trip, and a blocking look at its cache.
    "gssencmode": "disable",
    # A dead network path under an idle connection is noticed within a minute.
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}


#: The part of a statement's time in which the server may work on it and begin to commit. What is
#: left is for the commit and the way back, so that the server gives up before this process does.
SERVER_SHARE = 0.9

#: Seconds between two looks at the deadline of a wait.
TICK = 0.05

#: gevent's and libev's word for a watcher of what comes in.
READ = 1

_FIND_REPLAYED = f"""
    SELECT set_config('{statements.REPLAYED}',
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text END, false);
    EXECUTE find_replayed(%s)
"""


#: The number of a process that cannot be told from others.
NO_PROCESS = 0

#: What every session sets, and the SQL of the value. Each setting that an answer rests on is set,
#: even to its default: one that the connection has not set changes under it when the server reads
#: its configuration again.
_SETTINGS = {
    # An acknowledged write is a durable one. Only 'remote_apply' waits for more.
    "synchronous_commit": """CASE current_setting('synchronous_commit', true)
        WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END""",
    # The server must send its warnings about a commit: see _commit.
    "client_min_messages": "'warning'",
    # The driver reads dates in this style.
    "datestyle": "'ISO'",
    # Every statement looks rows up by the primary key. Without statistics, on a new
    # table, the planner would scan it, and keep that plan until the next ANALYZE.
    "plan_cache_mode": "'force_generic_plan'",
    "enable_seqscan": "'off'",
    # Each statement has its own snapshot: see find_replayed.
    "default_transaction_isolation": "'read committed'",
}


def _settings(statement_timeout: float) -> str:
    """The SQL that every new connection runs first, in one message.

    It sets _SETTINGS and `statement_timeout`, which is in seconds, and asks which server and which
    engine this is. SET is the cheapest where the value is no expression.
    """
    wanted = _SETTINGS | {"statement_timeout": _milliseconds(statement_timeout)}
    each = "; ".join(
        f"SET {name} = {value}"
        if value.startswith("'")
        else f"SELECT set_config('{name}', {value}, false)"
        for name, value in wanted.items()
    )
    return f"""
        {each};
        SELECT has_function_privilege('pg_control_system()', 'execute')
            AND has_function_privilege('pg_control_checkpoint()', 'execute')
            AND has_function_privilege('pg_control_recovery()', 'execute'),
            pg_backend_pid(), pg_postmaster_start_time(), clock_timestamp(),
            {engine.QUESTION};
    """


def _settings_that_exist(statement_timeout: float) -> str:
    """The same for an engine that lacks some of it: what it does not have is left out."""
    wanted = _SETTINGS | {"statement_timeout": _milliseconds(statement_timeout)}
    values = ", ".join(f"('{name}', {value})" for name, value in wanted.items())
    return f"""
        SELECT set_config(name, value, false) FROM (VALUES {values}) AS wanted (name, value)
            WHERE current_setting(name, true) IS NOT NULL;
        SELECT false, {NO_PROCESS}, clock_timestamp(), clock_timestamp(), {engine.QUESTION};
    """


def _milliseconds(statement_timeout: float) -> str:
    return f"'{max(1, int(statement_timeout * SERVER_SHARE * 1000))}'"


def _prepare(known: Engine) -> str:
    """The SQL that gets a connection ready for `find` and `save`, in one message."""
    forms = statements.of(known)
    plans = "" if known.keeps_plans else "SET plan_cache_mode = 'force_custom_plan';"
    find_replayed = f"PREPARE find_replayed AS {forms.find_replayed};" if known.has_fence else ""
    return f"""
        {plans}
        PREPARE find AS {forms.find};
        {find_replayed}
        PREPARE save AS {forms.save};
    """


#: What an engine says of SQL that it does not have.
_NOT_KNOWN = (
    errors.FeatureNotSupported,
    errors.SyntaxError,
    errors.UndefinedFunction,
    errors.UndefinedObject,
)


class _TimedOut(Exception):
    """The deadline passed while psycopg2 waited for the server."""


class _GreenConnection(extensions.connection):
    """A psycopg2 connection whose waits end at `deadline` (time.monotonic()), to within TICK.

    Once it is open, one watcher and one timer serve all its waits for the server to answer: new
    ones would cost each statement 10 µs. They belong to the hub of the thread in which it was
    opened; in another thread each wait has new ones. It must be closed: its watcher keeps it alive.
    """

    def __init__(self, dsn: str, deadline: float) -> None:
        self.deadline = deadline
        self._hub = get_hub()
        self._watcher: Any = None
        self._timer: Any = None
        #: The greenlet that waits for an answer.
        self._waiter: Any = None
        super().__init__(dsn)

    def opened(self) -> None:
        """Must be called once it is connected: until then libpq may change the socket."""
        self._watcher = self._hub.loop.io(self.fileno(), READ)
        self._timer = self._hub.loop.timer(TICK, TICK)

    def wait(self, state: int) -> None:
        """Wait until the server has sent something, or takes more; raises _TimedOut."""
        hub = get_hub()
        if state != extensions.POLL_READ or self._watcher is None or hub is not self._hub:
            wait = wait_read if state == extensions.POLL_READ else wait_write
            remaining = self.deadline - time.monotonic()
            wait(self.fileno(), None if remaining == inf else max(0.0, remaining), _TimedOut)
            return
        if not self._watcher.active:
            self._watcher.start(self._readable)
        self._waiter = getcurrent()
        self._timer.again(self._tick)
        try:
            hub.switch()
        finally:
            self._timer.stop()
            self._waiter = None

    def close(self) -> None:
        if self._watcher is not None:
            # Before the socket is closed, whose number the next one may have.
            self._watcher.stop()
            self._watcher.close()
            self._timer.close()
            self._watcher = None
        super().close()

    def _readable(self) -> None:
        """Called in the hub when the server has sent something."""
        if self._waiter is not None:
            self._waiter.switch()
        else:
            # It is over, or a notice has come. The next wait starts the watcher again.
            self._watcher.stop()

    def _tick(self) -> None:
        """Called in the hub every TICK during a wait."""
        if self.deadline <= time.monotonic():
            self._waiter.throw(_TimedOut)


def _wait(connection: Any) -> None:
    """psycopg2's wait callback (extensions.set_wait_callback)."""
    is_ours = isinstance(connection, _GreenConnection)
    while (state := connection.poll()) != extensions.POLL_OK:
        if not is_ours:
            (wait_read if state == extensions.POLL_READ else wait_write)(connection.fileno())
            continue
        if connection.deadline <= time.monotonic():
            raise _TimedOut
        # `poll` comes once more after a time-out: the answer may be there, if this process stood
        # still.
        with suppress(_TimedOut):
            connection.wait(state)


class ServerProcess(NamedTuple):
    """The process of a server that serves one connection."""

    pid: int
    #: When the server was started: a process of another server is another one.
    server_started: datetime
    #: A moment at which the process was there, by the server's clock: a process that is given the
    #: same number later has begun after it.
    clock: datetime


# A role that may not end a process does not see when it began either: such a process counts as
# being there.
_END_PROCESS = """
    SELECT CASE WHEN backend_start <= %(clock)s THEN pg_terminate_backend(pid) END
    FROM pg_stat_activity
    WHERE pid = %(pid)s AND (backend_start <= %(clock)s) IS NOT FALSE
        AND pg_postmaster_start_time() = %(server_started)s
"""


class Lineage(NamedTuple):
    """The origin of a write-ahead log: that of a replica is its primary's."""

    #: The system identifier, which initdb draws.
    system: int
    #: The timeline, which grows with each failover.
    timeline: int


class Position(NamedTuple):
    """A place in the write-ahead log of one primary and its replicas."""

    #: None if the role may not read it.
    lineage: Lineage | None
    lsn: int

    def is_of_system(self, other: "Position") -> bool:
        """Whether both are of one system, as far as that is known."""
        mine, theirs = self.lineage, other.lineage
        return mine is not None and theirs is not None and mine.system == theirs.system


class Newest:
    """The newest lineage that any connection to one primary has shown.

    A primary that was paused, or cut off, while a standby took over, goes on as if nothing had
    happened: a worker that has seen the new primary must not use the old one.
    """

    def __init__(self) -> None:
        self.lineage: Lineage | None = None

    def learn(self, lineage: Lineage | None) -> None:
        if lineage is not None and not self.outdates(lineage):
            self.lineage = lineage

    def outdates(self, lineage: Lineage | None) -> bool:
        """Whether `lineage` is that of an older primary."""
        return (
            self.lineage is not None
            and lineage is not None
            and self.lineage.system == lineage.system
            and self.lineage.timeline > lineage.timeline
        )


class PostgreSQLConnection:
    """See `hello.database.session.DatabaseConnection`. `configure` must be called first.

    Every call raises ConnectionBroken once `newest` has learned of a newer primary.
    """

    def __init__(
        self,
        connection: _GreenConnection,
        statement_timeout: float,
        newest: Newest,
        known: Engine | None = None,
        setting: str = "DB_URI",
    ) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._statement_timeout = statement_timeout
        #: The engine; None if it is to be found out.
        self._known = known
        #: The setting that names the server.
        self._setting = setting
        #: The SQL with which the session began.
        self._settings = ""
        self.engine = known or engine.POSTGRESQL
        #: Whether a pooler stands before the server.
        self.is_pooled = False
        self._can_forget = False
        self._newest = newest
        self.lineage: Lineage | None = None
        self._process = ServerProcess(0, datetime.min, datetime.min)
        #: When the server's clock was read, in terms of time.monotonic().
        self._clock_read = 0.0

    def configure(self, deadline: float) -> None:
        """Set what answers rest on, and learn which server this is."""
        self._settings = _settings(self._statement_timeout)
        try:
            rows = self._need(self._settings, deadline)
        except Unfit:
            self._settings = _settings_that_exist(self._statement_timeout)
            rows = self._need(self._settings, deadline)
        # The server read its clock a little earlier: times reckoned from it are too early, never
        # late.
        may_know_lineage, pid, started, clock, *answer = rows[0]
        self._process, self._clock_read = ServerProcess(pid, started, clock), time.monotonic()
        self.engine = self._known or engine.identify(*answer)
        if not self.engine.ends_processes:
            self._process = self._process._replace(pid=NO_PROCESS)
        # A pooler answers for its servers, with a number of its own.
        self.is_pooled = pid not in (NO_PROCESS, self._connection.get_backend_pid())
        if may_know_lineage and self.engine.has_lineage:
            # A standby receives a timeline only if what it has replayed is in that timeline's
            # history. Where nothing is received, and to a role that may not see it, the timeline
            # is that of the last restartpoint: after a failover it is behind for some minutes, in
            # which the standby is not used. A primary's is that of its log, whose files' names
            # begin with it; its last checkpoint may be older.
            sql = """
                SELECT system_identifier, greatest(timeline_id, min_recovery_end_timeline,
                        (SELECT received_tli FROM pg_stat_wal_receiver)),
                    CASE WHEN NOT pg_is_in_recovery()
                        THEN pg_walfile_name(pg_current_wal_flush_lsn()) END
                FROM pg_control_system(), pg_control_checkpoint(), pg_control_recovery()
            """
            [(system, timeline, file)] = self._need(sql, deadline)
            self.lineage = Lineage(system, _timeline(file) if file else timeline)

    def prepare(self, deadline: float) -> None:
        sql = _prepare(self.engine)
        if self.is_pooled:
            # Should the pooler share sessions after all, no statement is prepared in one that
            # lacks the settings.
            sql = self._settings + sql
        self._need(sql, deadline)

    def process(self, deadline: float) -> int:
        """The process of the server that answers now."""
        [(pid,)] = self.execute(engine.SELECT_PROCESS, None, deadline)
        return int(pid)

    def find(self, names: Iterable[str], deadline: float) -> dict[str, Record]:
        wanted = list(names)
        return records(wanted, self.execute("EXECUTE find(%s)", (_array(wanted),), deadline))

    def save(self, details: Mapping[str, Details], deadline: float) -> dict[str, int]:
        names = sorted(details)
        born = [details[name].isoformat() for name in names]
        arrays = _array(names), _array(born)
        return dict(self._change("EXECUTE save(%s, %s, %s)", arrays, deadline))

    def forget(self, names: Iterable[str], deadline: float) -> dict[str, bool]:
        wanted = list(names)
        if not self._can_forget:
            forget = statements.of(self.engine).forget
            self._need(f"PREPARE forget AS {forget}", deadline)
            self._can_forget = True
        rows = self._change("EXECUTE forget(%s, %s)", (_array(wanted),), deadline)
        if len(rows) < len(wanted) and self.engine.looks_at_each_row:
            # Another session may have deleted the rest, and have been told not to wait.
            self._commit(statements.WAIT_FOR_STANDBY, None, deadline)
        return {name: True for name, _ in rows}

    def flushed(self, deadline: float) -> Position:
        """How far the log of this primary is on disk: past every acknowledged write."""
        sql = "SELECT lsn, pg_walfile_name(lsn) FROM pg_current_wal_flush_lsn() AS lsn"
        [(lsn, file)] = self.execute(sql, None, deadline)
        known = self.lineage
        lineage = known and Lineage(known.system, _timeline(file))
        return Position(lineage, _lsn(lsn))

    def find_replayed(
        self, names: Iterable[str], deadline: float
    ) -> tuple[Position, dict[str, Record]]:
        """How far this replica had replayed before it read the rows, and the records.

        One message holds two statements. The position is read in the first: in the second
        it would be read after the snapshot of the rows was taken, and might include a
        commit that the rows do not show.
        """
        wanted = list(names)
        rows = self.execute(_FIND_REPLAYED, (_array(wanted),), deadline)
        replayed = rows[0][0]
        if not replayed:
            raise ConnectionBroken("it is no replica, or not any more")
        found = records(wanted, (row for _, *row in rows if row[0]))
        return Position(self.lineage, _lsn(replayed)), found

    def cache_standing(self, deadline: float) -> CacheStanding:
        """How the cache may be used, as the primary says."""
        return _standing(self.execute(statements.CACHE_STANDING, None, deadline))

    def suspend_cache(self, seconds: float, history: str | None, deadline: float) -> CacheStanding:
        """Commit a new generation of the cache, which nobody uses for `seconds`.

        `history` is that of the cache server to use from then on; None if it stays the same. The
        number is drawn at random for each call, so that a primary that lost a commit, a statement
        that arrives late and another database never begin the same generation.
        """
        parameters = {"number": secrets.randbits(62), "history": history, "seconds": seconds}
        suspend = statements.of(self.engine).suspend_cache
        return _standing(self._commit(suspend, parameters, deadline))

    def may_suspend_cache(self, deadline: float) -> bool:
        """Whether this role has the right to suspend the cache."""
        rows = self.execute("SELECT has_table_privilege('cache_use', 'UPDATE')", None, deadline)
        return bool(rows[0][0])

    def applied(self, deadline: float) -> list[str]:
        try:
            return [name for (name,) in self.execute(schema.SELECT_APPLIED, None, deadline)]
        except ConnectionBroken as ex:
            if isinstance(ex.__cause__, errors.UndefinedTable):
                return []
            raise

    def end(self, process: ServerProcess, deadline: float) -> bool:
        """End the process of a connection that broke; return whether it is gone.

        If it is gone, its statement is over; one that nobody can name may be there still. A server
        that took over from the process's own has no such process, and the old primary is taken to
        be fenced.
        """
        if process.pid == NO_PROCESS:
            return False
        return not self.execute(_END_PROCESS, process._asdict(), deadline)

    def close(self) -> None:
        self._connection.close()

    def _end(self, deadline: float) -> float:
        return min(deadline, time.monotonic() + self._statement_timeout)

    def _change(
        self, sql: str, parameters: tuple[Any, ...], deadline: float
    ) -> list[tuple[Any, ...]]:
        """Run a statement that changes rows, with the time after which it must not as a parameter.

        Raises DatabaseUnavailable if no time is left: then nothing is sent. Raises
        OutcomeUnknown if the connection broke, and the server may go on with the statement.
        """
        now, end = time.monotonic(), self._end(deadline)
        if end <= now:
            raise DatabaseUnavailable("no time was left for a write")
        until = now + (end - now) * SERVER_SHARE
        process = self._process
        expires = process.clock + timedelta(seconds=until - self._clock_read)
        try:
            return self._commit(sql, (*parameters, expires), end)
        except ConnectionBroken as ex:
            if getattr(ex.__cause__, "pgcode", None) is not None:
                raise  # the server has said that the statement is over
            if not self.engine.looks_at_each_row:
                # It looked at the clock when it began, and may have waited for rows since.
                until += self._statement_timeout * SERVER_SHARE
            raise OutcomeUnknown(
                str(ex), until, lambda other, deadline: other.end(process, deadline)
            ) from ex

    def _commit(self, sql: str, parameters: Any, deadline: float) -> list[tuple[Any, ...]]:
        """Run a statement that writes; raises DatabaseUnavailable if the server warned of it.

        A server process that is told not to wait for a synchronous standby any longer commits all
        the same, and warns. Only the text of that warning tells it from others, in the server's
        language; so every warning counts, but for those that are known to be harmless.
        """
        notices = self._connection.notices
        notices.clear()
        rows = self.execute(sql, parameters, deadline)
        if any(not _is_harmless(notice) for notice in notices):
            raise DatabaseUnavailable("the server warned of a commit: a standby may lack it")
        return rows

    def execute(self, sql: str, parameters: Any, deadline: float) -> list[Any]:
        """Run one statement.

        Raises DatabaseUnavailable if it did not finish in time, ConnectionBroken, or Rejected.
        """
        self._connection.deadline = self._end(deadline)
        self._check_lineage()
        try:
            self._cursor.execute(sql, parameters)
            rows = self._cursor.fetchall() if self._cursor.description else []
        except (_TimedOut, errors.QueryCanceled) as ex:
            raise DatabaseUnavailable("the statement did not finish in time") from ex
        except errors.DivisionByZero as ex:
            raise ConnectionBroken("a write arrived, or got its rows, too late") from ex
        except (psycopg2.DataError, psycopg2.IntegrityError, UnicodeEncodeError) as ex:
            raise Rejected("the database cannot store this value") from ex
        except (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement) as ex:
            if self.is_pooled:
                raise Unfit(engine.POOLER_SHARES_SESSIONS.format(self._setting)) from ex
            raise ConnectionBroken(_reason(ex)) from ex
        except psycopg2.Error as ex:
            raise ConnectionBroken(_reason(ex)) from ex
        # If a newer primary became known meanwhile, what was committed here is lost.
        self._check_lineage()
        return rows

    def _need(self, sql: str, deadline: float) -> list[Any]:
        """Run what the service cannot do without; raises Unfit if the engine does not know it."""
        try:
            return self.execute(sql, None, deadline)
        except ConnectionBroken as ex:
            if isinstance(ex.__cause__, _NOT_KNOWN):
                raise Unfit(
                    f"the engine at {self._setting} has no support for what is sent to it: {ex}"
                ) from ex
            raise

    def _check_lineage(self) -> None:
        if self._newest.lineage is not self.lineage and self._newest.outdates(self.lineage):
            raise ConnectionBroken("a newer primary has taken over from this one")


class PostgreSQL:
    """Opens connections to one PostgreSQL server, or to whichever of several hosts takes writes.

    If `takes_writes` is false, any host will do. `uri` is asked for libpq's connection URI at
    every connect. Timeouts are in seconds, `connect_timeout` for each address. `known` is the
    engine; None if it is to be found out. With `fenced`, the engine must have a fence. See
    `hello.database.session.Connector`.
    """

    def __init__(
        self,
        uri: Callable[[], str],
        *,
        connect_timeout: float,
        statement_timeout: float,
        takes_writes: bool = True,
        known: Engine | None = None,
        fenced: bool = False,
    ) -> None:
        self._uri = uri
        self._known = known
        self._fenced = fenced
        self._setting = "DB_URI" if takes_writes else "DB_READ_URI"
        #: Whether a pooler was seen to give each connection a session of its own.
        self._trusts_pooler = False
        self._takes_writes = takes_writes
        self._connect_timeout = connect_timeout
        self._statement_timeout = statement_timeout
        self._first = 0
        self._newest = Newest()
        # The callback is set for the whole process. Other classes of connections wait without an
        # end.
        extensions.set_wait_callback(_wait)

    def connect(self, deadline: float) -> PostgreSQLConnection:
        error = DatabaseUnavailable("no host of the database could be resolved in time")
        for host, parameters in self._candidates(deadline):
            # The next call begins with the next host, if this one has no time for it.
            self._first = host + 1
            end = min(deadline, time.monotonic() + self._connect_timeout)
            try:
                connection = self._connect(parameters, end)
            except DatabaseUnavailable as ex:
                error = ex
            else:
                self._first = host
                return connection
            if time.monotonic() >= deadline:
                break
        raise error

    def _connect(self, parameters: dict[str, str], deadline: float) -> PostgreSQLConnection:
        connection = self._open(parameters, deadline)
        try:
            connection.configure(deadline)
            if self._fenced and not connection.engine.has_fence:
                raise Unfit(
                    f"the engine at {self._setting} has no log that tells how far a replica is:"
                    " leave DB_READ_URI out"
                )
            if connection.is_pooled and not self._trusts_pooler:
                self._try_pooler(connection, parameters, deadline)
            if self._takes_writes:
                self._newest.learn(connection.lineage)
                if self._newest.outdates(connection.lineage):
                    raise DatabaseUnavailable("a newer primary has taken over from this one")
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self, parameters: dict[str, str], deadline: float) -> PostgreSQLConnection:
        try:
            raw = _GreenConnection(extensions.make_dsn(**parameters), deadline)
        except _TimedOut as ex:
            raise DatabaseUnavailable("the server did not accept a connection in time") from ex
        except psycopg2.Error as ex:
            raise DatabaseUnavailable(_reason(ex)) from ex
        raw.autocommit = True
        raw.opened()
        return PostgreSQLConnection(
            raw, self._statement_timeout, self._newest, self._known, self._setting
        )

    def _try_pooler(
        self, connection: PostgreSQLConnection, parameters: dict[str, str], deadline: float
    ) -> None:
        """Raise Unfit if the pooler shares sessions among connections."""
        with closing(self._open(parameters, deadline)) as another:
            if engine.shares_sessions(
                lambda: connection.process(deadline), lambda: another.process(deadline)
            ):
                raise Unfit(engine.POOLER_SHARES_SESSIONS.format(self._setting))
        self._trusts_pooler = True

    def _candidates(self, deadline: float) -> Iterator[tuple[int, dict[str, str]]]:
        """Connection parameters for each address of each host, with the host's number.

        They come in the URI's order, beginning with the host that worked last.
        """
        parameters = DEFAULTS | extensions.parse_dsn(self._uri())
        # What is given to libpq hides the environment from it; both are given below.
        hosts = (parameters.get("host") or os.environ.get("PGHOST", "")).split(",")
        ports = (parameters.get("port") or os.environ.get("PGPORT", "")).split(",")
        ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
        if self._takes_writes:
            # After a failover, the host that was demoted still accepts connections, and its name
            # may still be the one in the URI: its rows are old.
            parameters.setdefault("target_session_attrs", "read-write")
        first = self._first % len(hosts)
        for number in [*range(first, len(hosts)), *range(first)]:
            host, port = hosts[number], ports[number]
            parameters |= {"host": host, "port": port or "5432"}
            if not host or host.startswith("/") or "hostaddr" in parameters:
                yield number, parameters
                continue
            timeout = min(self._connect_timeout, deadline - time.monotonic())
            for address in resolver.addresses(host, timeout):
                # With both given, libpq connects to `hostaddr` and verifies `host`.
                yield number, parameters | {"hostaddr": address}


def _array(texts: list[str]) -> str:
    """An array as PostgreSQL writes it (its manual, section 8.15.6).

    Given a list, psycopg2 would quote each text by itself, and PostgreSQL would parse each as an
    expression: for 16 of them that takes both 10 µs more.
    """
    whole = "".join(texts)
    if '"' in whole or "\\" in whole:
        texts = [text.replace("\\", r"\\").replace('"', r"\"") for text in texts]
    return '{"' + '","'.join(texts) + '"}' if texts else "{}"


def _standing(rows: list[tuple[Any, ...]]) -> CacheStanding:
    if not rows:
        raise DatabaseUnavailable("the table cache_use has lost its row")
    [(number, history, suspended)] = rows
    return CacheStanding(Generation(number, history), suspended)


def _is_harmless(notice: str) -> bool:
    """Whether a warning beside an answer has nothing to do with the commit.

    One is about transaction ids, and comes with every write for days before they are used up.
    Another is the end of the connection, after the answer.
    """
    return "must be vacuumed" in notice or notice.startswith("FATAL")


def _timeline(file: str) -> int:
    """The timeline, with which the name of a file of the write-ahead log begins."""
    return int(file[:8], 16)


def _lsn(text: str) -> int:
    """A position in the write-ahead log, in bytes, from PostgreSQL's notation `16/B374D848`."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def _reason(ex: psycopg2.Error) -> str:
    """What went wrong, in words that hold no value of a row and no secret.

    The words are the server's primary message alone (its DETAIL quotes rows), or libpq's: its
    messages about connecting name hosts and users, never passwords.
    """
    text = ex.diag.message_primary or str(ex).strip() or type(ex).__name__
    return text.splitlines()[0]
