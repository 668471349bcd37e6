"""The cache as its readers and writers use it, each with a connection of its own."""

import re
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

import redis

from hello.cache.connection import CacheConnection, CacheUnavailable, Lease
from hello.database.models import Generation, Record

OLD, NEW, NEWER = date(1990, 5, 17), date(1991, 6, 18), date(1992, 7, 19)
#: The number of a generation of keys.
G = 7


Connect = Callable[..., "Connection"]


def history(server: redis.Redis) -> str:
    named: str = server.info("replication")["master_replid"]
    return named


class Connection(CacheConnection):
    """One that uses a generation of the server as it is now, unless another is meant."""

    def claim(self, names: Iterable[str], generation: Generation | None = None) -> dict:
        return super().claim(names, generation or self.present())

    def remove(self, names: Iterable[str], generation: Generation | None = None) -> None:
        super().remove(names, generation or self.present())

    def present(self) -> Generation:
        with redis.Redis.from_url(self._uri(), decode_responses=True) as server:
            return Generation(G, history(server))


def key(store: redis.Redis, name: str = "alice") -> str:
    """The key of a user."""
    return f"hello:1:{G}:{store.info('server')['run_id'][:12]}:{name}"


def held(store: redis.Redis, name: str = "alice") -> Record | None:
    """The value that is stored for a user, if it is one."""
    match = re.fullmatch(r"v\|(?:.*\|)?(\d+)\|(\d{4}-\d\d-\d\d)", str(store.get(key(store, name))))
    return match and Record(date.fromisoformat(match[2]), int(match[1]))


def fill(connection: Connection, **users: Record) -> None:
    """Read users that are not cached, and store them."""
    claimed = connection.claim(users)
    [lease] = {lease for lease in claimed.values() if isinstance(lease, Lease)}
    connection.fill(lease, users)


def insist(operation: Callable[[], Any]) -> Any:
    """Do it on a new connection if the server has closed the old one."""
    try:
        return operation()
    except CacheUnavailable:
        return operation()
