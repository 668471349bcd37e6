"""The lanes of a worker over a cache, and a table in memory in place of the database."""

import time
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, cast

from hello.cache.connection import CacheConnection
from hello.cache.lanes import Cache, CacheReads, FillingReads, RemovingWrites
from hello.cache.permission import Permission
from hello.database.models import CacheStanding, Generation, Record
from hello.database.postgresql import PostgreSQLConnection
from hello.database.session import Session
from hello.errors import Rejected
from tests.support.cache import G
from tests.support.users import users_of

#: A deadline. What is tested here waits for the cache alone, which has its own.
FOREVER = float("inf")


class Table:
    """Stands in for the database, and for sessions with it."""

    def __init__(self) -> None:
        self.generation = Generation(G, "")
        self.suspended_until = 0.0
        self.rows: dict[str, Record] = {}
        self.read: list[str] = []
        self.fail: Exception | None = None
        self.refused: set[str] = set()

    def find(self, names: Mapping[str, object], deadline: float) -> dict[str, Any]:
        if self.fail:
            raise self.fail
        self.read += names
        found: dict[str, Any] = {n: self.rows[n] for n in names if n in self.rows}
        return found | {name: Rejected("no") for name in self.refused & names.keys()}

    def save(self, dates: Mapping[str, date], deadline: float) -> dict[str, Any]:
        versions: dict[str, Any] = {}
        for name, born in dates.items():
            old = self.rows.get(name, Record(None, 0))
            if name in self.refused:
                versions[name] = Rejected("no")
            elif old.date_of_birth != born:
                versions[name] = old.version + 1
                self.rows[name] = Record(born, old.version + 1)
        if self.fail:
            raise self.fail
        return versions

    def call(self, operation: Callable[["Table"], Any], deadline: float, statement: str) -> Any:
        return operation(self)

    def cache_standing(self, deadline: float) -> CacheStanding:
        if self.fail:
            raise self.fail
        return CacheStanding(self.generation, max(0.0, self.suspended_until - time.monotonic()))

    def suspend_cache(self, seconds: float, history: str | None, deadline: float) -> CacheStanding:
        if self.fail:
            raise self.fail
        number, named = self.generation
        self.generation = Generation(number + 1, named if history is None else history)
        self.suspended_until = time.monotonic() + seconds
        return self.cache_standing(deadline)


class Worker:
    def __init__(self, table: Table, connect: Callable[[], CacheConnection]) -> None:
        self.cache = Cache(connect, Permission(cast(Session[PostgreSQLConnection], table)))
        self.cached = CacheReads(self.cache)
        self.reads = FillingReads(table.find, self.cache)
        self.writes = RemovingWrites(table.save, self.cache)
        self.users = users_of([self.reads], [self.writes], [self.cached])
