"""What is measured of each dependency, for `/health` and for `python -m hello check`.

Each check opens connections of its own and closes them again. It takes the seconds that it has,
changes nothing, returns what else there is to say, and raises Unavailable.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from typing import Any, NamedTuple

from hello.breaker import Breaker
from hello.cache.connection import CacheUnavailable
from hello.cache.lanes import Cache
from hello.database.postgresql import PostgreSQLConnection
from hello.database.session import Session
from hello.errors import DatabaseUnavailable, Unavailable

#: Sessions with the primary and with a replica. Their kind differs with the database.
AnySession = Session[Any]
OpenSession = Callable[[], AnySession]

Check = Callable[[float], Mapping[str, Any]]


class Finding(NamedTuple):
    """What a check said, after how many seconds."""

    seconds: float
    problem: Unavailable | None = None
    details: Mapping[str, Any] = {}

    @property
    def latency_ms(self) -> float:
        return round(self.seconds * 1000, 2)

    @property
    def reason(self) -> str:
        """Why, for whoever runs the service: it may name hosts and roles."""
        return str(self.problem or "")

    @property
    def public_reason(self) -> str:
        """Why, for anybody."""
        return self.problem.detail if self.problem else ""

    def document(self, reason: str) -> dict[str, Any]:
        """For machines."""
        if self.problem:
            return {"state": "down", "reason": reason}
        return {"state": "up", "latency_ms": self.latency_ms, **self.details}


def measure(check: Check, timeout: float) -> Finding:
    """Run a check, which keeps to its timeout, in seconds, as well as it can."""
    start = time.monotonic()
    try:
        details = check(timeout)
    except Unavailable as ex:
        return Finding(time.monotonic() - start, ex)
    return Finding(time.monotonic() - start, None, details)


def status(read: Unavailable | None, dependencies: Mapping[str, Finding]) -> str:
    """`unavailable` if no user can be read, which is what `read` says; else `ok` or `degraded`.

    "degraded" says that a dependency is down, and reads are answered all the same.
    """
    if read:
        return "unavailable"
    return "degraded" if any(finding.problem for finding in dependencies.values()) else "ok"


def check_primary(open_primary: OpenSession, uses_cache: bool, timeout: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout
    with closing(open_primary()) as session:
        session.call(lambda c: c.find([""], deadline), deadline)
        _rehearse(session, lambda c: c.save({}, deadline), uses_cache, deadline)
    return {}


def check_replica(
    open_primary: OpenSession, open_replica: OpenSession, breaker: Breaker, timeout: float
) -> dict[str, Any]:
    deadline = time.monotonic() + timeout
    with closing(open_primary()) as primary, closing(open_replica()) as replica:
        replayed, _ = replica.call(lambda c: c.find_replayed([""], deadline), deadline)
        details = {"breaker": breaker.state}
        try:
            flushed = primary.call(lambda c: c.flushed(deadline), deadline)
        except DatabaseUnavailable:
            return details
        if replayed.lineage != flushed.lineage:
            raise DatabaseUnavailable("it does not follow this primary; it is not used")
        return details | {"lag_bytes": max(0, flushed.lsn - replayed.lsn)}


def check_cache(open_primary: OpenSession, cache: Cache, timeout: float) -> dict[str, Any]:
    with closing(cache.connect()) as connection:
        try:
            connection.ping()
        except CacheUnavailable as ex:
            raise Unavailable(f"the cache does not answer: {ex}") from ex
    deadline = time.monotonic() + timeout
    # Unless the primary is away: its own check says so.
    with closing(open_primary()) as session, suppress(DatabaseUnavailable):
        _check_suspending(session, deadline)
    return {"breaker": cache.breaker.state, "suspended": cache.permission.suspended}


def check_writes(open_primary: OpenSession, uses_cache: bool, timeout: float) -> dict[str, Any]:
    """Whether a PUT would be answered now."""
    deadline = time.monotonic() + timeout
    with closing(open_primary()) as session:
        check_write(session, lambda c: c.save({}, deadline), uses_cache, deadline)
    return {}


def check_write(
    session: AnySession, write: Callable[[Any], object], uses_cache: bool, deadline: float
) -> None:
    """Whether a write would be acknowledged now, also if the cache went away meanwhile.

    `write` is told the connection, and writes of nobody: it fails where writing would. Raises
    Unavailable.
    """
    _rehearse(session, write, uses_cache, deadline)
    if uses_cache:
        # Any cache may need it: one that answers may not be the one that was used last.
        _check_suspending(session, deadline)


def _rehearse(
    session: AnySession, write: Callable[[Any], object], uses_cache: bool, deadline: float
) -> None:
    """Do what every write does, and write nothing."""
    session.call(write, deadline)
    if uses_cache:
        session.call(lambda c: c.cache_standing(deadline), deadline)


def _check_suspending(session: Session[PostgreSQLConnection], deadline: float) -> None:
    """A role that may not suspend the cache can save nothing while the cache is away."""
    if not session.call(lambda c: c.may_suspend_cache(deadline), deadline, "permission"):
        raise Unavailable("the role may not update the table cache_use")
