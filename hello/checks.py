"""The checks of dependencies, for `/health` and for the report in `hello/check.py`.

A check takes the seconds that it may last, and returns details to show. It opens connections of
its own, closes them again, and changes nothing. It raises Unavailable if the dependency fails.
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

#: A session with the primary or a replica, over connections of either database.
AnySession = Session[Any]
OpenSession = Callable[[], AnySession]

Check = Callable[[float], Mapping[str, Any]]


class Finding(NamedTuple):
    """What a check found: what is wrong, if anything, and details; and how long it took."""

    seconds: float
    problem: Unavailable | None = None
    details: Mapping[str, Any] = {}

    @property
    def latency_ms(self) -> float:
        return round(self.seconds * 1000, 2)

    @property
    def reason(self) -> str:
        """What is wrong, for whoever runs the service: hosts and roles may be named."""
        return str(self.problem or "")

    @property
    def public_reason(self) -> str:
        """What is wrong, in words for anybody."""
        return self.problem.detail if self.problem else ""

    def document(self, reason: str) -> dict[str, Any]:
        """The finding as JSON, with `reason` if something is wrong."""
        if self.problem:
            return {"state": "down", "reason": reason}
        return {"state": "up", "latency_ms": self.latency_ms, **self.details}


def measure(check: Check, timeout: float) -> Finding:
    """Run a check. `timeout`, in seconds, is for the check to keep: nothing here enforces it."""
    start = time.monotonic()
    try:
        details = check(timeout)
    except Unavailable as ex:
        return Finding(time.monotonic() - start, ex)
    return Finding(time.monotonic() - start, None, details)


def status(read: Unavailable | None, found: Mapping[str, Finding]) -> str:
    """`unavailable` if no user can be read, which is what `read` says; else `ok` or `degraded`.

    "degraded" says that something else that was asked does not work, and reads are answered all
    the same.
    """
    if read:
        return "unavailable"
    return "degraded" if any(finding.problem for finding in found.values()) else "ok"


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
    # A primary that is away is reported by its own check.
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

    `write` gets the connection and runs the statement of the write for no user, which fails where
    writing one would. Raises Unavailable.
    """
    _rehearse(session, write, uses_cache, deadline)
    if uses_cache:
        # The right is needed although the cache answers: it may not be the one that was used last.
        _check_suspending(session, deadline)


def _rehearse(
    session: AnySession, write: Callable[[Any], object], uses_cache: bool, deadline: float
) -> None:
    """Run what every write runs, for no user. Raises Unavailable."""
    session.call(write, deadline)
    if uses_cache:
        session.call(lambda c: c.cache_standing(deadline), deadline)


def _check_suspending(session: Session[PostgreSQLConnection], deadline: float) -> None:
    """Raise Unavailable if the role may not suspend the cache, as a PUT must while it is away."""
    if not session.call(lambda c: c.may_suspend_cache(deadline), deadline, "permission"):
        raise Unavailable("the role may not update the table cache_use")
