"""The databases and the cache that the settings name, as lanes and as health checks."""

import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import Any

from hello.batching import Batcher
from hello.breaker import Breaker
from hello.cache.connection import CacheConnection, CacheUnavailable
from hello.cache.lanes import Cache, CacheReads, FillingReads, RemovingWrites
from hello.cache.permission import Permission
from hello.database.guard import Guard
from hello.database.postgresql import PostgreSQL
from hello.database.replica import FencedReads, Primary, Replica
from hello.database.session import Current, Route, Session, find, forget, save
from hello.database.sqlite import SQLiteFile, SQLiteMemory
from hello.errors import DatabaseUnavailable, Unavailable
from hello.resources.health import Check
from hello.settings import Settings
from hello.telemetry import metrics
from hello.uris import URIs
from hello.users import Users


class Backends:
    """Everything that a worker talks to."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._uris = URIs(settings.source)
        self._primary: Route[Any]
        self._guard: Guard[Any] | None = None
        if settings.db_uri.is_memory:
            self._primary = Current(SQLiteMemory())
        elif settings.db_uri.is_sqlite:
            self._primary = Current(SQLiteFile(settings.db_uri.sqlite_path))
        else:
            self._primary = self._guard = self._guarded(self._uris.primary)
            self._fence = Primary(self._session(), self._guard.keep)
        self._replicas = [
            (f"replica {n + 1}", self._guarded(partial(self._uris.replica, n), False), Breaker())
            for n in range(settings.replicas)
        ]
        self._cache: Cache | None = None
        if settings.cache:
            self._cache = Cache(self._connect_cache, Permission(self._session()))
        self._watch()

    def users(self, batcher: Callable[..., Batcher[Any, Any]] = Batcher) -> Users:
        """The users, with the lanes that the settings ask for."""
        settings = self._settings
        # SQLite answers within the call: a second lane would never run.
        read_lanes = 1 if settings.db_uri.is_sqlite else settings.read_lanes
        readers: list[Any] = [self._reader(n) for n in range(read_lanes)]
        writer: Any = self._session().lane(save)
        cached: list[CacheReads] = []
        if self._cache is not None:
            readers = [FillingReads(reader, self._cache) for reader in readers]
            writer = RemovingWrites(writer, self._cache)
            cached = [CacheReads(self._cache)]
        return Users(
            readers,
            [writer],
            cached,
            max_waiting=settings.max_waiting,
            timeout=settings.request_timeout,
            batcher=batcher,
        )

    def _reader(self, lane: int) -> Any:
        primary = self._session()
        if not self._replicas:
            return primary.lane(find)
        # Each lane prefers another replica.
        turned = self._replicas[lane % len(self._replicas) :] + self._replicas
        replicas = [
            Replica(name, Session(route, name), breaker)
            for name, route, breaker in turned[: len(self._replicas)]
        ]
        return FencedReads(primary, self._fence, replicas)

    def checks(self) -> dict[str, Check]:
        """A check for each, on a connection of its own that is closed again."""
        checks: dict[str, Check] = {"primary": self._check_primary}
        for name, route, breaker in self._replicas:
            checks[name] = partial(self._check_replica, route, breaker)
        if self._cache is not None:
            checks["cache"] = self._check_cache
        return checks

    def _watch(self) -> None:
        metrics.BREAKERS.watch(("primary",), self._primary_is_left_alone)
        for name, _, breaker in self._replicas:
            metrics.BREAKERS.watch((name,), partial(getattr, breaker, "is_open"))
        if (cache := self._cache) is not None:
            metrics.BREAKERS.watch(("cache",), partial(getattr, cache.breaker, "is_open"))
            metrics.SUSPENDED.watch((), partial(getattr, cache.permission, "suspended"))

    def _primary_is_left_alone(self) -> bool:
        return self._guard is not None and (self._guard.failing or self._fence.silent)

    def _check_primary(self, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        with closing(self._session()) as session:
            session.call(lambda connection: connection.find([""], deadline), deadline)
            self._rehearse(session, deadline)
        return {}

    def check_writes(self, timeout: float) -> dict[str, Any]:
        """Whether a PUT would be answered now."""
        deadline = time.monotonic() + timeout
        with closing(self._session()) as session:
            self._check_write(session, save, deadline)
        return {}

    def forget(self, username: str) -> bool:
        """Erase a user as a PUT writes: in the database, then in the cache.

        Whether there was one. It is certain on return that every GET which begins later is 404.
        Raises Unavailable if it is not: the message says whether the user is erased. Raises
        Rejected if the database can store no such username.
        """
        timeout = self._settings.request_timeout
        deleted = False

        def delete(names: dict[str, None], deadline: float) -> Any:
            nonlocal deleted
            results = session.run(forget, names, deadline)
            deleted = True
            return results

        with closing(self._session()) as session:
            deadline = time.monotonic() + timeout
            try:
                # If its answer is lost, the DELETE is repeated, and finds nothing.
                known = session.call(lambda c: c.find([username], deadline), deadline)
                self._check_write(session, forget, deadline)
            except Unavailable as ex:
                raise Unavailable(f"nothing was erased: {ex}") from ex
            lane = delete if self._cache is None else RemovingWrites(delete, self._cache)
            try:
                erased = lane({username: None}, time.monotonic() + timeout)
            except Unavailable as ex:
                state = (
                    "it is erased from the database, and may still be shown from the cache"
                    if deleted
                    else "it is not known whether it is erased"
                )
                raise Unavailable(f"{state}, so run this again: {ex}") from ex
        return username in known or username in erased

    def _check_write(self, session: Session[Any], write: Any, deadline: float) -> None:
        """Find out whether a statement that writes would end well now, in the cache too."""
        self._rehearse(session, deadline, write)
        if self._cache is not None:
            # Any cache may need it: one that answers may not be the one that was used last.
            self._check_suspending(session, deadline)

    def _rehearse(self, session: Session[Any], deadline: float, write: Any = save) -> None:
        """Do what every write does, and write nothing."""
        # Of nobody: it fails where writing would.
        session.call(lambda connection: write(connection, {}, deadline), deadline)
        if self._cache is not None:
            session.call(lambda connection: connection.cache_standing(deadline), deadline)

    def _check_replica(self, route: Route[Any], breaker: Breaker, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        with closing(self._session()) as primary, closing(Session(route, "replica")) as replica:
            replayed, _ = replica.call(lambda c: c.find_replayed([""], deadline), deadline)
            details = {"breaker": _state(breaker)}
            try:
                flushed = primary.call(lambda c: c.flushed(deadline), deadline)
            except DatabaseUnavailable:
                return details
            if replayed.history != flushed.history:
                raise DatabaseUnavailable("it does not follow this primary; it is not used")
            return details | {"lag_bytes": max(0, flushed.lsn - replayed.lsn)}

    def _check_cache(self, timeout: float) -> dict[str, Any]:
        assert self._cache is not None
        self._ping_cache()
        deadline = time.monotonic() + timeout
        # Unless the primary is away: its own check says so.
        with closing(self._session()) as session, suppress(DatabaseUnavailable):
            self._check_suspending(session, deadline)
        return {
            "breaker": _state(self._cache.breaker),
            "suspended": self._cache.permission.suspended,
        }

    def _ping_cache(self) -> None:
        assert self._cache is not None
        with closing(self._cache.connect()) as connection:
            try:
                connection.ping()
            except CacheUnavailable as ex:
                raise Unavailable(f"the cache does not answer: {ex}") from ex

    @staticmethod
    def _check_suspending(session: Session[Any], deadline: float) -> None:
        """A role that may not suspend the cache can save nothing while the cache is away."""
        if not session.call(lambda c: c.may_suspend_cache(deadline), deadline, "permission"):
            raise Unavailable("the role may not update the table cache_use")

    def _session(self) -> Session[Any]:
        """One with the primary."""
        return Session(self._primary, "primary")

    def _guarded(self, uri: Callable[[], str], takes_writes: bool = True) -> Guard[Any]:
        return Guard(Current(self._postgresql(uri, takes_writes)))

    def _postgresql(self, uri: Callable[[], str], takes_writes: bool = True) -> PostgreSQL:
        return PostgreSQL(
            uri,
            takes_writes=takes_writes,
            connect_timeout=self._settings.connect_timeout,
            # The server must not go on with what nobody waits for.
            statement_timeout=min(self._settings.statement_timeout, self._settings.request_timeout),
        )

    def _connect_cache(self) -> CacheConnection:
        return CacheConnection(
            self._uris.cache,
            timeout=self._settings.cache_timeout,
            lease=self._settings.request_timeout,
            ttl=self._settings.cache_ttl,
        )


def _state(breaker: Breaker) -> str:
    return "open" if breaker.is_open else "closed"
