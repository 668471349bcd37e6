"""The statements of the service, compiled once from Peewee queries.

Statements that find and change users take a whole batch as one or two array parameters, so that
their text never changes and the database parses and plans it once per connection.
"""

from typing import Any, NamedTuple

from peewee import (
    EXCLUDED,
    SQL,
    Case,
    Database,
    Expression,
    NodeList,
    PostgresqlDatabase,
    Select,
    SqliteDatabase,
    fn,
)

from hello.database.engine import Engine
from hello.database.models import CacheUse, User


class Statements(NamedTuple):
    """SQL text in one database's dialect.

    `find` takes usernames, and SQLite's takes one; it returns (username, date_of_birth,
    version) of those that exist. `save` takes usernames and dates; it returns (username,
    version) of the rows that it created or changed. `forget` takes usernames; it returns
    those of the rows that it deleted. PostgreSQL's `save` and `forget` take one more
    parameter, a time of the server's clock: after it, they divide by zero and change nothing.
    Where a synchronous standby is named, PostgreSQL's `save` waits for that standby also with a
    date that is stored already.
    `find_replayed`, for a replica, is `find` with the setting `hello.replayed` before the columns
    of each row; if no user exists, it returns one row, with that setting and nulls.
    `suspend_cache`, for psycopg2, is beside CACHE_STANDING.
    """

    find: str
    save: str
    forget: str
    find_replayed: str = ""
    suspend_cache: str = ""


#: The setting in which a replica's connection keeps how far the replica had replayed before the
#: rows were read.
REPLAYED = "hello.replayed"

# Commits wait for a standby where one is named; `WAIT_FOR_STANDBY` writes a message into the log,
# so that its own commit has something to wait for.
_STANDBY_IS_NAMED = "current_setting('synchronous_standby_names') <> ''"
_WRITE_MESSAGE = "pg_logical_emit_message(true, 'hello', '')"
WAIT_FOR_STANDBY = f"SELECT {_WRITE_MESSAGE} WHERE {_STANDBY_IS_NAMED}"

_NOW = SQL("CURRENT_TIMESTAMP")
_NEW_NAME, _NEW_DATE = SQL("new.username"), SQL("new.date_of_birth")


def _find(is_one_of_the_names: Any) -> Any:
    return User.select(User.username, User.date_of_birth, User.version).where(is_one_of_the_names)


def _save(new: Any, is_distinct_from: str, in_time: Any, stored: Any = None) -> Any:
    """An upsert of `new`, a table (username, date_of_birth).

    The first WHERE drops a date that is stored already before it becomes an insert:
    `ON CONFLICT … WHERE` alone locks the row, takes a transaction id and writes WAL
    just to change nothing. It is a scalar subquery rather than a join so that rows
    are inserted in the order given: batches sorted by username cannot deadlock.

    `stored` is an expression that is false; it is evaluated only for a date that is stored already.

    The second WHERE drops a date that another writer stored meanwhile.

    `in_time` is an expression that is 1 or fails. It is evaluated for each row, existing or new,
    once this statement holds the row: it may have waited for another writer of that row.
    """
    known = User.alias("known")
    known_date = known.select(known.date_of_birth).where(known.username == _NEW_NAME)
    differs: Any = Expression(known_date, is_distinct_from, _NEW_DATE)
    if stored is not None:
        # CASE fixes the order of evaluation, which OR does not.
        differs = Case(None, [(differs, SQL("true"))], stored)
    return (
        User.insert_from(
            Select([new], [_NEW_NAME, _NEW_DATE, SQL("1"), _NOW, _NOW]).where(differs),
            [User.username, User.date_of_birth, User.version, User.created_at, User.updated_at],
        )
        .on_conflict(
            conflict_target=[User.username],
            update={
                User.date_of_birth: EXCLUDED.date_of_birth,
                User.version: User.version + SQL("1"),
                User.updated_at: _NOW,
            },
            where=(in_time == SQL("1")) & (User.date_of_birth != EXCLUDED.date_of_birth),
        )
        .returning(User.username, (User.version * in_time).alias("version"))
    )


def _save_at_once(new: Any, named: Any, in_time: Any) -> tuple[Any, Any]:
    """Two queries: of the rows that are `known`, and an upsert of `new` beside them.

    For engines where an upsert may neither look at other rows nor at the clock for each row, as
    Citus: both are done first. What it waits for after that is bounded by the time that a statement
    may take. A date that is stored already waits for no standby: the log in which a message could
    wait for it is another node's than the row's.
    """
    known = User.select(User.username, User.date_of_birth).where(named)
    beside_known = NodeList((new, SQL("LEFT JOIN known USING (username)")))
    differs = SQL("known.date_of_birth IS DISTINCT FROM new.date_of_birth")
    upsert = (
        User.insert_from(
            Select([beside_known], [_NEW_NAME, _NEW_DATE, SQL("1"), _NOW, _NOW]).where(
                in_time == SQL("1"), differs
            ),
            [User.username, User.date_of_birth, User.version, User.created_at, User.updated_at],
        )
        .on_conflict(
            conflict_target=[User.username],
            update={
                User.date_of_birth: EXCLUDED.date_of_birth,
                User.version: User.version + SQL("1"),
                User.updated_at: EXCLUDED.updated_at,
            },
            where=User.date_of_birth != EXCLUDED.date_of_birth,
        )
        .returning(User.username, User.version)
    )
    return known, upsert


def _forget_at_once(named: Any, in_time: Any) -> Any:
    """A deletion of users, which looks at the clock first: see `_save_at_once`."""
    return User.delete().where(named, in_time == SQL("1")).returning(User.username, SQL("1"))


def _forget(is_one_of_the_names: Any, in_time: Any) -> Any:
    """A deletion of users; see `_save` for `in_time`."""
    columns = (User.username, in_time.alias("in_time"))
    return User.delete().where(is_one_of_the_names).returning(*columns)


def _in_time(expires: str, clock: str = "clock_timestamp()") -> SQL:
    """An expression that is 1 until the time `expires`, and an error after it.

    The network may delay a statement, and another writer may hold its rows, until long after its
    sender gave up and another write was acknowledged, which it must not undo. The whole statement
    fails: a row that was changed in time would be committed too late.
    """
    return SQL(f"(1 / ({clock} < {expires}::timestamptz)::int)")


def _made_durable() -> SQL:
    """An expression that is false, and makes the commit wait for a standby if one is named.

    The writer that stored the date may still wait for the standby, or have been told to wait no
    longer; either way the row may be seen. The message, which is never null and which nobody reads,
    gives this commit a place in the log after that writer's.
    """
    return SQL(f"CASE WHEN {_STANDBY_IS_NAMED} THEN {_WRITE_MESSAGE} IS NULL ELSE false END")


def _compile(database: Database, query: Any) -> str:
    text, parameters = query.bind(database).sql()
    assert not parameters, "a value was compiled into the statement"
    return str(text)


def _postgresql() -> Statements:
    database = PostgresqlDatabase(None)
    names, dates = SQL("$1::text[]"), SQL("$2::date[]")
    new = NodeList((fn.unnest(names, dates), SQL("AS new (username, date_of_birth)")))
    named = User.username == fn.ANY(names)
    find = _compile(database, _find(named))
    return Statements(
        find=find,
        save=_compile(database, _save(new, "IS DISTINCT FROM", _in_time("$3"), _made_durable())),
        forget=_compile(database, _forget(named, _in_time("$2"))),
        find_replayed=f"SELECT current_setting('{REPLAYED}'), found.*"
        f" FROM (SELECT) AS always LEFT JOIN ({find}) AS found ON true",
        suspend_cache=_compile(database, _suspend_cache(SQL("clock_timestamp()"), _LEFT)),
    )


def _distributed() -> Statements:
    database = PostgresqlDatabase(None)
    names, dates = SQL("$1::text[]"), SQL("$2::date[]")
    new = NodeList((fn.unnest(names, dates), SQL("AS new (username, date_of_birth)")))
    named = User.username == fn.ANY(names)
    known, upsert = (
        _compile(database, query) for query in _save_at_once(new, named, _in_time("$3"))
    )
    # The clock at a statement's beginning is one that the nodes need not read.
    forget = _forget_at_once(named, _in_time("$2", "statement_timestamp()"))
    return Statements(
        find=_compile(database, _find(named)),
        save=f"WITH known AS MATERIALIZED ({known}), saved AS ({upsert})"
        " SELECT username, version FROM saved",
        forget=_compile(database, forget),
        # What is left is no more than that: the statement began before its answer comes.
        suspend_cache=_compile(
            database,
            _suspend_cache(SQL("statement_timestamp()"), SQL("%(seconds)s::float8")),
        ),
    )


def _sqlite() -> Statements:
    database = SqliteDatabase(None)
    # One parameter: a name, a JSON object of names and dates, or a JSON array of names.
    new = SQL("(SELECT key AS username, value AS date_of_birth FROM json_each(?)) AS new")
    return Statements(
        find=_compile(database, _find(User.username == SQL("?"))),
        # SQLite answers within the call, and no call is made too late.
        save=_compile(database, _save(new, "IS NOT", in_time=SQL("1"))),
        forget=_compile(
            database,
            _forget(User.username.in_(SQL("(SELECT value FROM json_each(?))")), in_time=SQL("1")),
        ),
    )


_LEFT = SQL("greatest(0, extract(epoch FROM suspended_until - clock_timestamp()))::float8")


def _suspend_cache(now: SQL, left: SQL) -> Any:
    suspend = CacheUse.update(
        {
            CacheUse.generation: SQL("%(number)s"),
            CacheUse.history: fn.coalesce(SQL("%(history)s"), CacheUse.history),
            CacheUse.suspended_until: NodeList((now, SQL("+ %(seconds)s * interval '1 second'"))),
        }
    )
    return suspend.returning(CacheUse.generation, CacheUse.history, left)


POSTGRESQL = _postgresql()
#: For engines where an upsert cannot look at each row (`Engine.looks_at_each_row`).
DISTRIBUTED = _distributed()
SQLITE = _sqlite()


def of(engine: Engine) -> Statements:
    """The statements in the form that an engine of PostgreSQL's protocol takes."""
    return POSTGRESQL if engine.looks_at_each_row else DISTRIBUTED


#: For psycopg2, on PostgreSQL alone. It and `suspend_cache` return (generation, history, seconds of
#: suspension left); `suspend_cache` takes the number of the generation that begins, the history or
#: None if it stays the same, and the seconds for which the cache is suspended.
CACHE_STANDING = _compile(
    PostgresqlDatabase(None), CacheUse.select(CacheUse.generation, CacheUse.history, _LEFT)
)
