"""The statements of the service, compiled once from Peewee queries.

Finding and saving users work on a whole batch and take it as one or two array parameters, so that
their text never changes and the database parses and plans it once per connection.
"""

from typing import Any, NamedTuple

from peewee import (
    EXCLUDED,
    SQL,
    Database,
    Expression,
    NodeList,
    PostgresqlDatabase,
    Select,
    SqliteDatabase,
    fn,
)

from hello.models import CacheUse, User


class Statements(NamedTuple):
    """SQL text in one database's dialect.

    `find` takes usernames, and SQLite's takes one; it returns (username, date_of_birth,
    version) of those that exist. `save` takes usernames and dates; it returns (username,
    version) of the rows that it created or changed. `forget` takes usernames; it returns
    those of the rows that it deleted. PostgreSQL's `save` and `forget` take one more
    parameter, a time of its own clock after which they do nothing, and return before each
    row whether they came in time, with one row of that and nulls if nothing changed.
    `find_replayed`, for a replica, is `find` with the setting `hello.replayed` before each
    row, and one row of it and nulls if no user exists.
    """

    find: str
    save: str
    forget: str
    find_replayed: str = ""


#: Where a replica's session keeps how far it had replayed before the rows were read.
REPLAYED = "hello.replayed"

_NOW = SQL("CURRENT_TIMESTAMP")
_NEW_NAME, _NEW_DATE = SQL("new.username"), SQL("new.date_of_birth")


def _find(is_one_of_the_names: Any) -> Any:
    return User.select(User.username, User.date_of_birth, User.version).where(is_one_of_the_names)


def _save(new: Any, is_distinct_from: str, in_time: Any = None) -> Any:
    """An upsert of `new`, a table (username, date_of_birth), if it is `in_time`.

    The first WHERE drops a date that is stored already before it becomes an insert:
    `ON CONFLICT … WHERE` alone locks the row, takes a transaction id and writes WAL
    just to change nothing. It is a scalar subquery rather than a join so that rows
    are inserted in the order given: batches sorted by username cannot deadlock.

    The second WHERE is for another writer that stored the same date meanwhile.
    """
    known = User.alias("known")
    known_date = known.select(known.date_of_birth).where(known.username == _NEW_NAME)
    differs = Expression(known_date, is_distinct_from, _NEW_DATE)
    condition = differs if in_time is None else in_time & differs
    return (
        User.insert_from(
            Select([new], [_NEW_NAME, _NEW_DATE, SQL("1"), _NOW, _NOW]).where(condition),
            [User.username, User.date_of_birth, User.version, User.created_at, User.updated_at],
        )
        .on_conflict(
            conflict_target=[User.username],
            update={
                User.date_of_birth: EXCLUDED.date_of_birth,
                User.version: User.version + SQL("1"),
                User.updated_at: _NOW,
            },
            where=(User.date_of_birth != EXCLUDED.date_of_birth),
        )
        .returning(User.username, User.version)
    )


def _forget(is_one_of_the_names: Any) -> Any:
    return User.delete().where(is_one_of_the_names).returning(User.username)


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
    # The network may keep a statement and deliver it long after its sender gave up and
    # another write was acknowledged; it must not undo that one.
    in_time = SQL("(statement_timestamp() < $3::timestamptz)")
    save = _compile(database, _save(new, "IS DISTINCT FROM", in_time))
    still_in_time = SQL("(statement_timestamp() < $2::timestamptz)")
    forget = _compile(database, _forget(still_in_time & named))
    return Statements(
        find=find,
        save=f"WITH saved AS ({save}) SELECT {in_time.sql}, saved.*"
        " FROM (SELECT) AS always LEFT JOIN saved ON true",
        forget=f"WITH forgotten AS ({forget}) SELECT {still_in_time.sql}, forgotten.*"
        " FROM (SELECT) AS always LEFT JOIN forgotten ON true",
        find_replayed=f"SELECT current_setting('{REPLAYED}'), found.*"
        f" FROM (SELECT) AS always LEFT JOIN ({find}) AS found ON true",
    )


def _sqlite() -> Statements:
    database = SqliteDatabase(None)
    # One parameter: a name, a JSON object of names and dates, or a JSON array of names.
    new = SQL("(SELECT key AS username, value AS date_of_birth FROM json_each(?)) AS new")
    return Statements(
        find=_compile(database, _find(User.username == SQL("?"))),
        save=_compile(database, _save(new, "IS NOT")),
        forget=_compile(
            database, _forget(User.username.in_(SQL("(SELECT value FROM json_each(?))")))
        ),
    )


POSTGRESQL = _postgresql()
SQLITE = _sqlite()


def _cache_use() -> tuple[str, str]:
    database = PostgresqlDatabase(None)
    left = SQL("greatest(0, extract(epoch FROM suspended_until - clock_timestamp()))::float8")
    standing = (CacheUse.generation, left)
    suspend = CacheUse.update(
        {
            CacheUse.generation: CacheUse.generation + SQL("1"),
            CacheUse.suspended_until: SQL("clock_timestamp() + %s * interval '1 second'"),
        }
    )
    return (
        _compile(database, CacheUse.select(*standing)),
        _compile(database, suspend.returning(*standing)),
    )


#: For psycopg2, on PostgreSQL alone. Both return (generation, seconds of suspension left);
#: the second takes the seconds for which the cache is to be suspended.
CACHE_STANDING, SUSPEND_CACHE = _cache_use()
