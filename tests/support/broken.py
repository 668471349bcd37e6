"""The service with mistakes that break the promise, to see that the checker finds them."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from functools import partial
from typing import Any

import gevent
import redis

from hello.app import App, create_app
from hello.backends import Backends
from hello.cache.connection import CacheConnection, CacheUnavailable, Lease
from hello.cache.keys import record_of
from hello.cache.permission import Permission
from hello.database.models import Generation, Record
from hello.database.postgresql import Position, PostgreSQL, PostgreSQLConnection
from hello.database.session import Session
from hello.errors import OutcomeUnknown
from hello.settings import Settings
from tests.support.stack import LATENESS

# The position of the replica is read after the snapshot of the rows was taken. The pause
# between both makes sure that it matters.
_FIND_REPLAYED = """
    WITH found AS MATERIALIZED (
        SELECT username, date_of_birth, version FROM users WHERE username = ANY(%s)
    ), pause AS MATERIALIZED (
        SELECT pg_sleep(0.03)
    )
    SELECT pg_last_wal_replay_lsn()::text, found.* FROM pause LEFT JOIN found ON true
"""


class LateFence:
    """A connection whose rows may be older than the position that comes with them."""

    def __init__(self, connection: PostgreSQLConnection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def find_replayed(
        self, usernames: Iterable[str], deadline: float
    ) -> tuple[Position, dict[str, Record]]:
        rows = self._connection.execute(_FIND_REPLAYED, (list(usernames),), deadline)
        high, low = rows[0][0].split("/")
        found = {name: Record(born, version) for _, name, born, version in rows if name}
        return Position(self._connection.lineage, int(high, 16) << 32 | int(low, 16)), found


class LateFenceRoute:
    def __init__(self, route: PostgreSQL) -> None:
        self._route = route

    def connect(self, deadline: float) -> LateFence:
        return LateFence(self._route.connect(deadline))


class LateFenceBackends(Backends):
    def _postgresql(self, *arguments: Any) -> Any:
        return LateFenceRoute(super()._postgresql(*arguments))


class UnguardedCache(CacheConnection):
    """Stores what was read, whatever happened since, and after a pause in which it does."""

    def fill(self, lease: Lease, found: Mapping[str, Record]) -> None:
        gevent.sleep(0.01)
        self.remove(found, lease.generation)
        claimed = self.claim(found, lease.generation).values()
        leases = [lease for lease in claimed if isinstance(lease, Lease)]
        super().fill(leases[0], found)


class UnguardedBackends(Backends):
    def _connect_cache(self) -> CacheConnection:
        connection = super()._connect_cache()
        connection.__class__ = UnguardedCache
        return connection


class NeverSuspended(Permission):
    """Takes a cache that cannot be reached for one that nobody can reach."""

    def suspend(self, deadline: float, history: str | None = None) -> None:
        pass


class NeverSuspendedBackends(Backends):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        assert self.cache
        self.cache.permission.__class__ = NeverSuspended


class OutlivingSaves(PostgreSQLConnection):
    """Saves, once it can, what its client has given up."""

    def prepare(self, deadline: float) -> None:
        super().prepare(deadline)
        self.execute("SET statement_timeout = 0", None, deadline)

    def save(self, dates: Mapping[str, date], deadline: float) -> dict[str, int]:
        names = sorted(dates)
        born = [dates[name].isoformat() for name in names]
        sql = "EXECUTE save(%s, %s::date[], 'infinity')"
        return dict(self.execute(sql, (names, born), deadline))


class RouteOf:
    """A route whose connections are of another class."""

    def __init__(self, kind: type[PostgreSQLConnection], route: PostgreSQL) -> None:
        self._kind = kind
        self._route = route

    def connect(self, deadline: float) -> PostgreSQLConnection:
        connection = self._route.connect(deadline)
        connection.__class__ = self._kind
        return connection


class OutlivingSavesBackends(Backends):
    def _postgresql(self, *arguments: Any) -> Any:
        return RouteOf(OutlivingSaves, super()._postgresql(*arguments))


#: The versions that this worker has stored.
_stored: dict[str, int] = {}


class NotedSaves(PostgreSQLConnection):
    def save(self, dates: Mapping[str, date], deadline: float) -> dict[str, int]:
        versions = super().save(dates, deadline)
        _stored.update(versions)
        return versions


class HigherVersions(CacheConnection):
    """Takes what is cached for newer than what was stored if its version is higher."""

    def remove(self, names: Iterable[str], generation: Generation) -> None:
        names = list(names)
        held = self.claim(names, generation)
        # Whoever is not kept, and the leases that were just claimed.
        if outdated := [name for name in names if not self._keeps(name, held)]:
            super().remove(outdated, generation)

    @staticmethod
    def _keeps(name: str, held: Mapping[str, Record | Lease]) -> bool:
        user = held.get(name)
        return isinstance(user, Record) and user.version > _stored.get(name, user.version)


class HigherVersionsBackends(Backends):
    def _postgresql(self, *arguments: Any) -> Any:
        return RouteOf(NotedSaves, super()._postgresql(*arguments))

    def _connect_cache(self) -> CacheConnection:
        connection = super()._connect_cache()
        connection.__class__ = HigherVersions
        return connection


#: Until when whoever has a lease that was sent twice is slow.
_slow_until: dict[str, float] = {}


class RepeatedClaims(CacheConnection):
    """Sends a claim whose connection broke once more, with the same lease.

    A pause makes sure that it matters: the first one arrives before anything is stored.
    """

    _token = ""

    def claim(self, names: Iterable[str], generation: Generation) -> dict[str, Record | Lease]:
        names = list(names)
        lease = Lease(f"r|{os.urandom(8).hex()}", generation)
        self._token = lease.token
        arguments = (names, generation, lease.token, self._lease)
        texts = self._run("claim", lambda: self._call("claim", *arguments))
        held = dict(zip(names, texts, strict=True))
        leases = {name: lease for name, text in held.items() if text == lease.token}
        users = {name: user for name, text in held.items() if (user := record_of(text))}
        return users | leases

    def _insist(self, operation: Callable[[], Any]) -> Any:
        try:
            return self._do_once(operation)
        except CacheUnavailable as ex:
            if not isinstance(ex.__cause__, redis.ConnectionError):
                raise
        _slow_until[self._token] = time.monotonic() + 2 * LATENESS
        return self._do_once(operation)

    def fill(self, lease: Lease, found: Mapping[str, Record]) -> None:
        gevent.sleep(max(0.0, _slow_until.pop(lease.token, 0.0) - time.monotonic()))
        super().fill(lease, found)


class RepeatedClaimsBackends(Backends):
    def _connect_cache(self) -> CacheConnection:
        connection = super()._connect_cache()
        connection.__class__ = RepeatedClaims
        return connection


class RepeatedSaves(Session[Any]):
    """Sends a statement whose connection broke once more, and does not end the first one."""

    def _settle(self, unknown: OutcomeUnknown) -> None:
        pass


class RepeatedSavesBackends(Backends):
    def open_primary(self) -> Session[Any]:
        return RepeatedSaves(self._primary, "primary")


def _wsgi(kind: type[Backends]) -> App:
    settings = Settings.load()
    backends = kind(settings)
    return create_app(backends.users(), time_zone=settings.time_zone)


late_fence = partial(_wsgi, LateFenceBackends)
unguarded_cache = partial(_wsgi, UnguardedBackends)
higher_versions = partial(_wsgi, HigherVersionsBackends)
repeated_claims = partial(_wsgi, RepeatedClaimsBackends)
repeated_saves = partial(_wsgi, RepeatedSavesBackends)
outliving_saves = partial(_wsgi, OutlivingSavesBackends)
never_suspended_cache = partial(_wsgi, NeverSuspendedBackends)
