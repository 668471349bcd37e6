"""The databases and the cache that the settings name, wired into lanes and into checks."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from hello import checks
from hello.batching import Batcher, Lane
from hello.breaker import Breaker
from hello.cache.connection import CacheConnection
from hello.cache.lanes import Cache, CacheReads, FillingReads, RemovingWrites
from hello.cache.permission import Permission
from hello.checks import Check
from hello.credentials import Credentials
from hello.database.guard import Guard
from hello.database.postgresql import PostgreSQL
from hello.database.replica import FencedReads, InTurn, Primary, Replica
from hello.database.session import Connector, CurrentSchema, Session
from hello.database.sqlite import SQLiteFile, SQLiteMemory
from hello.settings import Settings
from hello.telemetry import metrics
from hello.users import Users

Value = TypeVar("Value")
Result = TypeVar("Result")


class Backends:
    """The databases and the cache of a worker."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._credentials = Credentials(settings.source)
        self._primary: Connector[Any]
        left_alone = metrics.BREAKERS.labels("primary")
        if settings.db_uri.is_memory:
            self._primary = CurrentSchema(SQLiteMemory())
        elif settings.db_uri.is_sqlite:
            self._primary = CurrentSchema(SQLiteFile(settings.db_uri.sqlite_path))
        else:
            self._primary = guard = self._guarded(self._credentials.primary)
            self._watched = watched = Primary(self.open_primary(), guard.keep)
            left_alone.watch(lambda: guard.failing or watched.silent)
        names = [f"replica {number + 1}" for number in range(settings.replicas)]
        self._replicas = [
            (name, self._guarded(partial(self._credentials.replica, number), False), Breaker(name))
            for number, name in enumerate(names)
        ]
        self.cache: Cache | None = None
        if settings.cache:
            self.cache = Cache(self._connect_cache, Permission(self.open_primary()))

    def users(self, batcher: Callable[..., Batcher[Any, Any]] = Batcher) -> Users:
        """The users, with the lanes that the settings ask for."""
        settings = self._settings
        # SQLite answers within the call: a second lane would never run.
        read_lanes = 1 if settings.db_uri.is_sqlite else settings.read_lanes
        readers: list[Any] = [self._reader() for _ in range(read_lanes)]
        writer = self.writes(self.open_primary().save)
        cached: list[CacheReads] = []
        if self.cache is not None:
            readers = [FillingReads(reader, self.cache) for reader in readers]
            cached = [CacheReads(self.cache)]
        return Users(
            readers,
            [writer],
            cached,
            max_waiting=settings.max_waiting,
            timeout=settings.request_timeout,
            batcher=batcher,
        )

    def writes(self, lane: Lane[Value, Result]) -> Lane[Value, Result]:
        """`lane`, which writes, made to remove from the cache what it wrote."""
        return lane if self.cache is None else RemovingWrites(lane, self.cache)

    def _reader(self) -> Any:
        """A read lane."""
        primary = self.open_primary()
        if not self._replicas:
            return primary.find
        replicas = [
            Replica(name, Session(connector, name), breaker)
            for name, connector, breaker in self._replicas
        ]
        return InTurn(
            [
                FencedReads(primary, self._watched, replicas[first:] + replicas[:first])
                for first in range(len(replicas))
            ]
        )

    def checks(self) -> dict[str, Check]:
        """A check for each dependency, by its name."""
        open_primary, uses_cache = self.open_primary, self.cache is not None
        found: dict[str, Check] = {
            "primary": partial(checks.check_primary, open_primary, uses_cache)
        }
        for name, connector, breaker in self._replicas:
            open_replica = partial(Session, connector, "replica")
            found[name] = partial(checks.check_replica, open_primary, open_replica, breaker)
        if self.cache is not None:
            found["cache"] = partial(checks.check_cache, open_primary, self.cache)
        return found

    def check_writes(self, timeout: float) -> Mapping[str, Any]:
        """See `hello.checks.check_writes`."""
        return checks.check_writes(self.open_primary, self.cache is not None, timeout)

    def open_primary(self) -> Session[Any]:
        """A new session with the primary; it connects when it is first used."""
        return Session(self._primary, "primary")

    def _guarded(self, uri: Callable[[], str], takes_writes: bool = True) -> Guard[Any]:
        return Guard(CurrentSchema(self._postgresql(uri, takes_writes)))

    def _postgresql(self, uri: Callable[[], str], takes_writes: bool = True) -> PostgreSQL:
        return PostgreSQL(
            uri,
            takes_writes=takes_writes,
            known=self._settings.db_engine,
            fenced=self._settings.replicas > 0,
            connect_timeout=self._settings.connect_timeout,
            # PostgreSQL must not work on a statement that no request waits for any more.
            statement_timeout=min(self._settings.statement_timeout, self._settings.request_timeout),
        )

    def _connect_cache(self) -> CacheConnection:
        return CacheConnection(
            self._credentials.cache,
            timeout=self._settings.cache_timeout,
            lease=self._settings.request_timeout,
            ttl=self._settings.cache_ttl,
        )
