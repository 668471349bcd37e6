"""The engine that ENGINE_URI names, for tests that try what the service needs of one."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2

from tests.support.service import migrate

#: A database without tables of the service; None if no engine is to be tried.
URI = os.environ.get("ENGINE_URI")


def query(uri: str, sql: str) -> list[tuple]:
    """Run a statement, which is committed at once; return its rows."""
    with closing(psycopg2.connect(uri, connect_timeout=10)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def migrated(uri: str, first: str) -> Iterator[None]:
    """The database with the service's tables, until the block ends. `first` is the first script."""
    done = migrate(uri)
    assert done.returncode == 0, done.stderr
    assert done.stdout != "nothing to do\n", "the database of ENGINE_URI is in use"
    try:
        yield
    finally:
        done = migrate(uri, "--down", first, "--yes")
        assert done.returncode == 0, done.stderr
