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
  removes a lease, or a date that differs: versions begin anew when a user is erased. It
  never stores where there is nothing.

So whoever stores has read after the last write that removed a lease. Keys that were
evicted, flushed, expired, or lost with the server just miss.

A key also names the *generation*, see `hello.permission`, and the run of the server: what a
server brings back from a disk or from a copy when it starts is never read. See
docs/decisions/cache.md.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any, NamedTuple

import redis

from hello import cache_address
from hello.errors import DatabaseUnavailable
from hello.models import Birthday
from hello.telemetry import count, timed

#: Of the form of a value. It is part of each key, so that another form is another key.
SCHEMA_VERSION = 1

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
    elseif new ~= held then
      redis.call('DEL', key)
    end
  end
end
"""


class Lease(NamedTuple):
    """The right to store a user in a generation, unless somebody writes it meanwhile."""

    token: str
    generation: int


Cached = Birthday | Lease


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
        self._prefix = f"{prefix}:{SCHEMA_VERSION}"
        self._client: Any = None
        self._run_id = ""
        self._scripts: dict[str, Any] = {}

    def claim(self, names: Iterable[str], generation: int) -> dict[str, Cached]:
        """What is cached, and a lease for each that is not and that nobody else reads."""
        names = list(names)
        lease = Lease(f"r|{os.urandom(8).hex()}", generation)
        held = self._run("claim", names, generation, lease.token, self._lease)
        found: dict[str, Cached] = {}
        for name, text in zip(names, held, strict=True):
            if text == lease.token:
                found[name] = lease
            elif (user := _user(text)) is not None:
                found[name] = user
        return found

    def fill(self, lease: Lease, found: Mapping[str, Birthday | None]) -> None:
        """Store what was read under a lease; give the lease back for who was not found."""
        values = [_value(user) if user else "" for user in found.values()]
        self._run("fill", list(found), lease.generation, lease.token, self._ttl, *values)

    def update(
        self, dates: Mapping[str, date], versions: Mapping[str, int], generation: int
    ) -> None:
        """Outdate what is cached of users that were written; see `Connection.save`."""
        values = [
            _value(Birthday(born, versions[name])) if name in versions else ""
            for name, born in dates.items()
        ]
        try:
            self._run("update", list(dates), generation, self._ttl, *values)
        except CacheUnavailable as ex:
            if not isinstance(ex.__cause__, redis.ResponseError):
                raise
            # It answers, and has no room for more: making room is always allowed.
            self.forget(dates, generation)

    def forget(self, names: Iterable[str], generation: int) -> None:
        with timed("cache", "forget"):
            self._do(lambda client: client.unlink(*(self._key(n, generation) for n in names)))

    def ping(self) -> None:
        self._do(lambda client: client.ping())

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _key(self, name: str, generation: int) -> str:
        return f"{self._prefix}:{generation}:{self._run_id}:{name}"

    def _run(self, script: str, names: list[str], generation: int, *arguments: str | int) -> Any:
        def run(client: Any) -> Any:
            keys = [self._key(name, generation) for name in names]
            return self._scripts[script](keys, arguments, client)

        with timed("cache", script):
            return self._do(run)

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
            raise CacheUnavailable(_reason(ex)) from ex
        except BaseException:
            self.close()  # an answer may still be on its way
            raise

    def _connect(self) -> Any:
        client: Any = None
        try:
            client = cache_address.connect(self._uri(), self._timeout)
            self._run_id = client.info("server")["run_id"][:12]
        except Exception as ex:
            # Whatever it is that answers there, or that the URI has become: it is no cache.
            if client is not None:
                client.close()
            raise CacheUnavailable(_reason(ex)) from ex
        self._scripts = {
            "claim": client.register_script(_CLAIM),
            "fill": client.register_script(_FILL),
            "update": client.register_script(_UPDATE),
        }
        return client


def _reason(ex: Exception) -> str:
    """Why, in words that hold no key and no secret: of what the server said, the first one."""
    kind = type(ex).__name__
    if isinstance(ex, DatabaseUnavailable):
        return str(ex)
    if isinstance(ex, redis.RedisError):
        word = getattr(ex, "status_code", None) or str(ex).partition(" ")[0]
        if word.isascii() and word.isalpha() and word.isupper():
            return f"{kind}: {word}"
        cause = ex.__context__
        if isinstance(cause, OSError) and cause.strerror:
            return f"{kind}: {cause.strerror}"
    return kind


def _user(text: str) -> Birthday | None:
    """What a value says; None if it is none: a lease, or something that nobody here wrote."""
    try:
        kind, version, born = text.split("|")
        return Birthday(date.fromisoformat(born), int(version)) if kind == "v" else None
    except ValueError:
        return None


def _value(user: Birthday) -> str:
    return f"v|{user.version}|{user.date_of_birth}"
