"""The server-side cache: Valkey or Redis, shared by all workers of all pods.

It holds the version and the date of users that were read, never an answer, and it may
vanish at any time. It must never show a date older than one that was acknowledged.
Comparing versions is not enough: a reader that was slow could store the old version
after the new one was evicted. So a key holds one of two things:

    v|<version>|<date>   a value
    r|<token>            a lease: the right of one reader to store what it reads

- A reader that finds nothing puts a lease *before* it asks the database, and stores
  only if its lease is still there.
- A writer, after its commit and before anybody is answered, replaces an older value and
  removes a lease. It never stores where there is nothing.

So whoever stores has read after the last write that removed a lease. Keys that were
evicted, flushed, expired, or lost with the server just miss. See docs/decisions/cache.md.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import date
from functools import partial
from typing import Any, NamedTuple, TypeVar

import gevent
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from hello.batching import Lane
from hello.breaker import Breaker
from hello.errors import DatabaseUnavailable
from hello.models import Birthday
from hello.telemetry import count, timed

log = logging.getLogger(__name__)

#: Of the form of a value. It is part of each key, so that another form is another key.
SCHEMA_VERSION = 1

#: Users whose value may be outdated in a cache that cannot be reached. Beyond that
#: number the oldest are forgotten, and the time to live alone bounds what is left.
MAX_OUTDATED = 100_000
#: Seconds between two tries to remove them.
MEND_INTERVAL = 0.1
#: Seconds for which nobody reads from a cache that has come back: the others, too, may have
#: users to remove from it.
GRACE = 1.0

# The first line of each script says that it may write, so that a server which was demoted to
# a replica refuses it, and with it the old values that it would show.

# KEYS: keys. ARGV: lease, its milliseconds to live. Returns what each key holds now.
_CLAIM = """#!lua
local held = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
  if not held[i] then
    redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
    held[i] = ARGV[1]
  end
end
return held
"""

# KEYS: keys. ARGV: lease, milliseconds to live, then a value for each key, or ''.
_FILL = """#!lua
for i, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then
    if ARGV[i + 2] == '' then
      redis.call('DEL', key)
    else
      redis.call('SET', key, ARGV[i + 2], 'PX', ARGV[2])
    end
  end
end
"""

# KEYS: keys. ARGV: milliseconds to live, then for each key a value, or '' for a user whose
# date was stored already: what version that is, is not known.
_UPDATE = """#!lua
for i, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  if held then
    local new = ARGV[i + 1]
    local held_version = string.match(held, '^v|(%d+)|')
    local new_version = string.match(new, '^v|(%d+)|')
    if not held_version or not new_version then
      redis.call('DEL', key)
    elseif tonumber(new_version) > tonumber(held_version) then
      redis.call('SET', key, new, 'PX', ARGV[1])
    end
  end
end
"""


class Lease(NamedTuple):
    """The right to store a user, unless somebody writes it meanwhile."""

    token: str


Cached = Birthday | Lease
Result = TypeVar("Result")


class CacheUnavailable(Exception):
    """It is away, or left alone. Never an error of a request."""


class CacheConnection:
    """One connection to the cache, for one lane. Scripts run on whole batches.

    `uri` is asked for the URI at every connect. `timeout`, in seconds, bounds connecting
    and every operation; `lease` is how long a reader may take, `ttl` how long a value
    is kept. Every method raises CacheUnavailable.
    """

    def __init__(
        self, uri: Callable[[], str], *, timeout: float, lease: float, ttl: float, prefix: str
    ) -> None:
        self._uri = uri
        self._timeout = timeout
        self._lease = int(lease * 1000)
        self._ttl = int(ttl * 1000)
        self._prefix = f"{prefix}:{SCHEMA_VERSION}:"
        self._client: Any = None
        self._scripts: dict[str, Any] = {}

    def claim(self, names: Iterable[str]) -> dict[str, Cached]:
        """What is cached, and a lease for each that is not and that nobody else reads."""
        names = list(names)
        token = f"r|{os.urandom(8).hex()}"
        lease = Lease(token)
        held = self._run("claim", names, token, self._lease)
        found: dict[str, Cached] = {}
        for name, text in zip(names, held, strict=True):
            if text == token:
                found[name] = lease
            elif (user := _user(text)) is not None:
                found[name] = user
        return found

    def fill(self, token: str, found: Mapping[str, Birthday | None]) -> None:
        """Store what was read under a lease; give the lease back for who was not found."""
        values = [_value(user) if user else "" for user in found.values()]
        self._run("fill", list(found), token, self._ttl, *values)

    def update(self, dates: Mapping[str, date], versions: Mapping[str, int]) -> None:
        """Outdate what is cached of users that were written; see `Connection.save`."""
        values = [
            f"v|{versions[name]}|{born}" if name in versions else "" for name, born in dates.items()
        ]
        try:
            self._run("update", list(dates), self._ttl, *values)
        except CacheUnavailable as ex:
            if not isinstance(ex.__cause__, redis.ResponseError):
                raise
            # It answers, and has no room for more: making room is always allowed.
            self.forget(dates)

    def forget(self, names: Iterable[str]) -> None:
        with timed("cache", "forget"):
            self._do(lambda client: client.unlink(*map(self._key, names)))

    def ping(self) -> None:
        self._do(lambda client: client.ping())

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _run(self, script: str, names: list[str], *arguments: str | int) -> Any:
        keys = [self._key(name) for name in names]
        with timed("cache", script):
            return self._do(lambda client: self._scripts[script](keys, arguments, client))

    def _do(self, operation: Callable[[Any], Any]) -> Any:
        """Do something that can be repeated, on a new connection if the old one was cut."""
        used = self._client is not None
        try:
            return self._do_once(operation)
        except CacheUnavailable as ex:
            cut = isinstance(ex.__cause__, redis.ConnectionError)
            if not (used and cut):
                raise
        count("cache_retries")
        return self._do_once(operation)

    def _do_once(self, operation: Callable[[Any], Any]) -> Any:
        if self._client is None:
            self._client = self._connect()
        try:
            return operation(self._client)
        except (redis.RedisError, OSError, ValueError) as ex:
            self.close()
            raise CacheUnavailable(type(ex).__name__) from ex
        except BaseException:
            self.close()  # an answer may still be on its way
            raise

    def _connect(self) -> Any:
        try:
            client = redis.Redis.from_url(
                self._uri(),
                single_connection_client=True,
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                decode_responses=True,
                encoding_errors="replace",
                # Trying again is the breaker's business.
                retry=Retry(NoBackoff(), 0),
            )
        except (redis.RedisError, OSError, ValueError, DatabaseUnavailable) as ex:
            raise CacheUnavailable(type(ex).__name__) from ex
        self._scripts = {
            "claim": client.register_script(_CLAIM),
            "fill": client.register_script(_FILL),
            "update": client.register_script(_UPDATE),
        }
        return client


def _user(text: str) -> Birthday | None:
    """What a value says; None if it is none: a lease, or something that nobody here wrote."""
    try:
        kind, version, born = text.split("|")
        return Birthday(date.fromisoformat(born), int(version)) if kind == "v" else None
    except ValueError:
        return None


def _value(user: Birthday) -> str:
    return f"v|{user.version}|{user.date_of_birth}"


class Cache:
    """What the lanes of a worker know together about the cache.

    A failure opens the breaker, and the cache is left alone for a moment. Users that
    were written meanwhile are kept in mind: in the background they are removed from the
    cache as soon as it answers, and until then this worker does not read from it.
    """

    def __init__(self, connect: Callable[[], CacheConnection], ttl: float) -> None:
        self.connect = connect
        self.breaker = Breaker()
        #: A writer is not kept from the cache because a reader had to wait.
        self.write_breaker = Breaker()
        self._ttl = ttl
        #: When each user's value will have expired by itself, in time.monotonic().
        self._outdated: dict[str, float] = {}
        self._readable_at = 0.0

    @property
    def away(self) -> bool:
        return self.breaker.is_open or self.write_breaker.is_open

    @property
    def readable(self) -> bool:
        return not self._outdated and time.monotonic() >= self._readable_at

    def attempt(self, operation: Callable[[], Result], *, writing: bool = False) -> Result:
        """Do something with a connection; raises CacheUnavailable, at once if it is away."""
        breaker = self.write_breaker if writing else self.breaker
        if not breaker.allows():
            raise CacheUnavailable("left alone")
        try:
            result = operation()
        except CacheUnavailable as ex:
            if not breaker.is_open:
                log.warning("the cache does not answer: %s", ex)
            breaker.failed()
            count("cache_failures")
            raise
        if breaker.is_open:
            log.warning("the cache answers again")
            self._readable_at = time.monotonic() + GRACE
        breaker.succeeded()
        return result

    def outdate(self, names: Iterable[str]) -> None:
        """Remove users from the cache, in the background, as soon as that can be done."""
        if not self._outdated:
            gevent.spawn(self._mend)
        end = time.monotonic() + self._ttl
        for name in names:
            self._outdated[name] = end
        while len(self._outdated) > MAX_OUTDATED:
            del self._outdated[next(iter(self._outdated))]

    def _mend(self) -> None:
        connection = self.connect()
        while self._outdated:
            gevent.sleep(MEND_INTERVAL)
            now = time.monotonic()
            for name in [name for name, end in self._outdated.items() if end <= now]:
                del self._outdated[name]
            batch = dict(list(self._outdated.items())[:1000])
            try:
                while batch:
                    connection.forget(batch)
                    for name, end in batch.items():
                        if self._outdated.get(name) == end:  # not outdated again meanwhile
                            del self._outdated[name]
                    batch = dict(list(self._outdated.items())[:1000])
            except CacheUnavailable:
                continue
        connection.close()


class CacheReads:
    """A lane that asks the cache: a birthday, a lease, or nothing."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._connection = cache.connect()

    def __call__(self, names: dict[str, None], deadline: float, /) -> Mapping[str, Cached]:
        if not self._cache.readable:
            return {}
        try:
            found = self._cache.attempt(lambda: self._connection.claim(names))
        except CacheUnavailable:
            return {}
        if not self._cache.readable:
            return {}  # it has just come back
        hits = sum(isinstance(value, Birthday) for value in found.values())
        count("cache_hits", hits)
        count("cache_misses", len(names) - hits)
        return found


class FillingReads:
    """A read lane that stores in the cache what it read under a lease."""

    def __init__(self, reads: Lane[Lease | None, Birthday], cache: Cache) -> None:
        self._reads = reads
        self._cache = cache
        self._connection = cache.connect()

    def __call__(
        self, leases: dict[str, Lease | None], deadline: float, /
    ) -> Mapping[str, Birthday | Exception]:
        found = self._reads(leases, deadline)
        # Each batch that asked the cache had one token; a batch here may join several.
        fills: dict[str, dict[str, Birthday | None]] = {}
        for name, lease in leases.items():
            user = found.get(name)
            if lease and not isinstance(user, Exception) and not (user and user.stale):
                fills.setdefault(lease.token, {})[name] = user
        with suppress(CacheUnavailable):
            for token, users in fills.items():
                self._cache.attempt(partial(self._connection.fill, token, users))
        return found


class UpdatingWrites:
    """A write lane that outdates in the cache what it committed, before anybody is answered."""

    def __init__(self, writes: Lane[date, int], cache: Cache) -> None:
        self._writes = writes
        self._cache = cache
        self._connection = cache.connect()

    def __call__(self, dates: dict[str, date], deadline: float, /) -> Mapping[str, int | Exception]:
        try:
            results = self._writes(dates, deadline)
        except DatabaseUnavailable:
            # Perhaps it was committed after all.
            with suppress(CacheUnavailable):
                self._cache.attempt(partial(self._connection.forget, dates), writing=True)
            raise
        versions = {name: n for name, n in results.items() if not isinstance(n, Exception)}
        saved = {n: born for n, born in dates.items() if not isinstance(results.get(n), Exception)}
        try:
            self._cache.attempt(partial(self._connection.update, saved, versions), writing=True)
        except CacheUnavailable:
            self._cache.outdate(saved)
        return results
