"""The server-side cache: Valkey or Redis, shared by all workers of all pods.

The cache holds the version and the date of users that were read, never an answer, and may
vanish at any time. It must never show a date older than one that was acknowledged.
Comparing versions is not enough: a reader that was slow could store the old version
after the new one was evicted, and a row that was deleted, restored, or lost in a failover
begins its versions again. So a key holds a value, or a *lease*: the right of one reader to store
what it reads. See `hello.cache.keys`.

- A reader that finds nothing puts a lease *before* it asks the database, and stores
  only if its lease is still there.
- A writer, after its commit and before anybody is answered, removes whatever is there.

So a reader that stores has read after the last write that removed a lease. Keys that were
evicted, flushed, expired, or lost with the server just miss. A script that arrives late does no
harm: a removal makes one more miss, a store finds another lease or none, and no reader has a lease
that was put by an attempt whose answer was lost.

A key also names the *generation*. The primary says which generation is used, and on which server:
see `hello.cache.permission`. A server is known by its *history*, Valkey's `master_replid`, which
changes at every start and every promotion: so what a server brings back from a disk or from a copy
is never read. The history can change under an open connection, so each script compares it.
See docs/decisions/cache.md.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import gevent
import redis

from hello.cache import uri
from hello.cache.keys import keys_of, new_token, record_of, value_of
from hello.database.models import Generation, Record
from hello.errors import DatabaseUnavailable
from hello.telemetry import metrics

#: The first word of the error that a script raises on a server of another history; that history
#: follows it.
_ANOTHER_HISTORY = "HISTORY"

# The shebang of each script makes a replica refuse it: a server that was demoted would show old
# values.

# ARGV[1]: the history that the server must have.
_COMPARE_HISTORY = f"""
local history = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if history ~= ARGV[1] then
  return redis.error_reply('{_ANOTHER_HISTORY} ' .. history)
end
"""

# KEYS: keys. ARGV: history, lease, its milliseconds to live. Returns what each key holds now.
_CLAIM = f"""#!lua
{_COMPARE_HISTORY}
local held = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
  if not held[i] then
    redis.call('SET', key, ARGV[2], 'PX', ARGV[3])
    held[i] = ARGV[2]
  end
end
return held
"""

# KEYS: keys. ARGV: history, lease, milliseconds to live, then a value for each key, or ''.
_FILL = f"""#!lua
{_COMPARE_HISTORY}
for i, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[2] then
    if ARGV[i + 3] == '' then
      redis.call('DEL', key)
    else
      redis.call('SET', key, ARGV[i + 3], 'PX', ARGV[3])
    end
  end
end
"""

# KEYS: keys. ARGV: history. `allow-oom` lets a server that is full remove keys all the same.
_REMOVE = f"""#!lua flags=allow-oom
{_COMPARE_HISTORY}
return redis.call('UNLINK', unpack(KEYS))
"""


class Lease(NamedTuple):
    """The right to store a user in a generation, unless somebody writes it meanwhile."""

    token: str
    generation: Generation


class CacheUnavailable(Exception):
    """The cache is away, or left alone. No request fails for it."""


class AnotherHistory(CacheUnavailable):
    """The cache answers, and is not the server that the primary names."""

    def __init__(self, history: str) -> None:
        super().__init__("it is not the one that was used last")
        self.history = history


class CacheConnection:
    """One connection to the cache, for one lane. Scripts run on whole batches.

    `uri` is asked for the URI at every connect. All times are in seconds: `timeout` bounds every
    operation as a whole, connecting included; `lease` is how long a lease is kept, `ttl` how long
    a value is. Every method raises CacheUnavailable, and
    AnotherHistory if a generation is of another server.
    """

    def __init__(self, uri: Callable[[], str], *, timeout: float, lease: float, ttl: float) -> None:
        self._uri = uri
        self._timeout = timeout
        self._lease = int(lease * 1000)
        self._ttl = int(ttl * 1000)
        self._client: Any = None
        #: The server's `run_id`. Keys have it since those of the release before do, and both
        #: releases must use the same keys.
        self._run_id = ""
        self._scripts: dict[str, Any] = {}

    def claim(self, names: Iterable[str], generation: Generation) -> dict[str, Record | Lease]:
        """The records that are cached, and leases for users that are not and nobody else reads."""
        names = list(names)
        token = ""

        def claim() -> Any:
            nonlocal token
            # An attempt whose answer was lost may arrive after this one, and after a writer.
            token = new_token()
            return self._call("claim", names, generation, token, self._lease)

        held = self._run("claim", claim)
        found: dict[str, Record | Lease] = {}
        for name, text in zip(names, held, strict=True):
            if text == token:
                found[name] = Lease(token, generation)
            elif (record := record_of(text)) is not None:
                found[name] = record
        return found

    def fill(self, lease: Lease, found: Mapping[str, Record]) -> None:
        """Store what was read under a lease; remove the lease of users that do not exist."""
        values = [value_of(record) for record in found.values()]
        arguments: list[str | int] = [lease.token, self._ttl, *values]
        self._run("fill", lambda: self._call("fill", found, lease.generation, *arguments))

    def remove(self, names: Iterable[str], generation: Generation) -> None:
        """Remove the values and leases of users that were written."""
        names = list(names)
        self._run("remove", lambda: self._call("remove", names, generation))

    def ping(self) -> None:
        """Ask whether the server answers."""
        self._do(lambda: self._client.ping())

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _call(
        self, script: str, names: Iterable[str], generation: Generation, *arguments: str | int
    ) -> Any:
        keys = keys_of(names, generation, self._run_id)
        return self._scripts[script](keys, (generation.history, *arguments), self._client)

    def _run(self, name: str, operation: Callable[[], Any]) -> Any:
        start = time.monotonic()
        try:
            return self._do(operation)
        finally:
            seconds = time.monotonic() - start
            metrics.STATEMENT_SECONDS.labels("cache", name).observe(seconds)

    def _do(self, operation: Callable[[], Any]) -> Any:
        # redis-py's own timeouts are for one read, of which a slow answer may take many.
        timeout = gevent.Timeout(self._timeout)
        try:
            with timeout:
                return self._insist(operation)
        except gevent.Timeout as ex:
            if ex is not timeout:
                raise
            raise CacheUnavailable("it did not answer in time") from ex

    def _insist(self, operation: Callable[[], Any]) -> Any:
        """Run an operation, which can be repeated, again if the connection had been cut."""
        used = self._client is not None
        try:
            return self._do_once(operation)
        except CacheUnavailable as ex:
            cut = isinstance(ex.__cause__, redis.ConnectionError)
            if not (used and cut):
                raise
        metrics.RETRIES.labels("cache").inc()
        return self._do_once(operation)

    def _do_once(self, operation: Callable[[], Any]) -> Any:
        if self._client is None:
            self._client = self._connect()
        try:
            return operation()
        except (redis.RedisError, OSError, ValueError) as ex:
            word, _, history = str(ex).partition(" ")
            if isinstance(ex, redis.ResponseError) and word == _ANOTHER_HISTORY:
                raise AnotherHistory(history) from None
            self.close()
            raise CacheUnavailable(_reason(ex)) from ex
        except BaseException:
            self.close()  # an answer may still be on its way
            raise

    def _connect(self) -> Any:
        client: Any = None
        try:
            client = uri.connect(self._uri(), self._timeout)
            self._run_id = client.info("server")["run_id"][:12]
        except BaseException as ex:
            if client is not None:
                client.close()
            if not isinstance(ex, Exception):
                raise
            # Any exception: who knows what answers at that address, or what the URI has become.
            raise CacheUnavailable(_reason(ex)) from ex
        self._scripts = {
            "claim": client.register_script(_CLAIM),
            "fill": client.register_script(_FILL),
            "remove": client.register_script(_REMOVE),
        }
        return client


def _reason(ex: Exception) -> str:
    """What went wrong, without keys and secrets: of the server's message, the first word alone."""
    error = type(ex).__name__
    if isinstance(ex, DatabaseUnavailable):
        return str(ex)
    if isinstance(ex, redis.RedisError):
        word = getattr(ex, "status_code", None) or str(ex).partition(" ")[0]
        if word.isascii() and word.isalpha() and word.isupper():
            return f"{error}: {word}"
        cause = ex.__context__
        if isinstance(cause, OSError) and cause.strerror:
            return f"{error}: {cause.strerror}"
    return error
