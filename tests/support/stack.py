"""Everything that the service talks to, and what can happen to it."""

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import NamedTuple

from hello.cache.permission import SUSPENSION
from tests.support.postgres import Cluster
from tests.support.processes import eventually, stopped
from tests.support.proxy import BLACKHOLE, LATE, PASS, Proxy
from tests.support.service import SERVE, Service, migrate
from tests.support.valkey import Valkey

Fault = Callable[[], AbstractContextManager[None]]

DATABASE = "postgres"

#: How many rows somebody holds, of those that are used most.
HELD = 3

#: Seconds for which they are held at least: longer than a statement may take.
HELD_SECONDS = 1.5

#: Seconds for which a process stands still: longer than every term, and than any lease.
STOPPED_SECONDS = SUSPENSION + 1

#: Seconds by which bytes come late whose connection was reset. A statement's time, which here is
#: a second or more, has not passed then.
LATENESS = 0.5


_COLUMNS = "username, date_of_birth::text, version, created_at, updated_at"
_COPY = f"SELECT {_COLUMNS} FROM users"
_RESTORE = """
    INSERT INTO users (username, date_of_birth, version, created_at, updated_at)
    VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (username) DO UPDATE SET date_of_birth = excluded.date_of_birth,
        version = excluded.version, created_at = excluded.created_at,
        updated_at = excluded.updated_at
"""


class Combination(NamedTuple):
    """Which of the optional parts the service uses."""

    replica: bool = False
    cache: bool = False

    def __str__(self) -> str:
        parts = [name for name, used in self._asdict().items() if used]
        return " + ".join(["primary", *parts])


COMBINATIONS = [Combination(*used) for used in itertools.product((False, True), repeat=2)]


class Stack:
    """A primary, and perhaps replicas and a cache, each reached by a network path of its own.

    The primary has so many `addresses`, each a path.
    """

    def __init__(self, *, replicas: int = 0, cache: bool = False, addresses: int = 1) -> None:
        self.primary = Cluster().create().start()
        done = migrate(self.primary.uri(DATABASE))
        assert done.returncode == 0, done.stderr
        self.primary.query("CREATE EXTENSION pg_stat_statements", DATABASE)
        self.replicas = [Cluster().create_standby(self.primary).start() for _ in range(replicas)]
        self.caches = [Valkey().start()] if cache else []
        self.primary_paths = [Proxy(self.primary.port) for _ in range(addresses)]
        self.replica_paths = [Proxy(replica.port) for replica in self.replicas]
        #: Of two services, each has its own.
        self.cache_paths = [Proxy(each.port) for each in self.caches for _ in range(2)]
        for path in self._paths:
            path.lateness = LATENESS
        #: Those that run.
        self._services: list[Service] = []
        self._end_suspension()

    @property
    def primary_path(self) -> Proxy:
        return self.primary_paths[0]

    @property
    def replica(self) -> Cluster:
        return self.replicas[0]

    @property
    def replica_path(self) -> Proxy:
        return self.replica_paths[0]

    @property
    def cache(self) -> Valkey:
        return self.caches[0]

    @property
    def cache_path(self) -> Proxy:
        return self.cache_paths[0]

    @property
    def _paths(self) -> list[Proxy]:
        return [*self.primary_paths, *self.replica_paths, *self.cache_paths]

    @property
    def settings(self) -> dict[str, str]:
        """How the service is told of all this."""
        hosts = ",".join(f"127.0.0.1:{path.port}" for path in self.primary_paths)
        settings = {"DB_URI": f"postgresql://postgres@{hosts}/{DATABASE}"}
        if self.replicas:
            settings["DB_READ_URI"] = ",".join(
                self.primary.uri(DATABASE, port=path.port) for path in self.replica_paths
            )
        if self.cache_paths:
            settings["CACHE_URI"] = self._cache_uri(self.cache_path)
        return settings

    @staticmethod
    def _cache_uri(path: Proxy) -> str:
        return f"redis://127.0.0.1:{path.port}/0"

    def service(self, command: Sequence[str] = SERVE, /, **settings: str) -> Service:
        """Start the service on all of it, and wait until it is ready."""
        return Service(command, **(self.settings | settings)).wait_until()

    @contextmanager
    def services(
        self, combination: Combination, command: Sequence[str] = SERVE, /, **settings: str
    ) -> Iterator[list[Service]]:
        """Two services of two workers each, on some of it."""
        settings["WEB_CONCURRENCY"] = "2"
        if not combination.replica:
            settings["DB_READ_URI"] = ""
        uris = ["", ""]
        if combination.cache:
            uris = [self._cache_uri(path) for path in self.cache_paths]
        with (
            self.service(command, **(settings | {"CACHE_URI": uris[0]})) as one,
            self.service(command, **(settings | {"CACHE_URI": uris[1]})) as other,
        ):
            self._services = [one, other]
            try:
                yield [one, other]
            finally:
                self._services = []

    def stored(self) -> dict[str, tuple[str, int]]:
        """What the primary holds: each user's date and version."""
        sql = "SELECT username, date_of_birth::text, version FROM users"
        return {name: (born, version) for name, born, version in self.primary.query(sql, DATABASE)}

    def copy(self, username: str) -> tuple | None:
        """A row as a backup has it; None if there is none."""
        rows = self.primary.query(f"{_COPY} WHERE username = %s", DATABASE, (username,))
        return rows[0] if rows else None

    def restore(self, username: str, row: tuple | None) -> None:
        """Put a row back as an operator does, who tells no cache; without one, delete it."""
        if row is None:
            sql = "DELETE FROM users WHERE username = %s"
            self.primary.query(sql, DATABASE, (username,))
        else:
            self.primary.query(_RESTORE, DATABASE, row)

    def heal(self) -> None:
        """End whatever happens, and wait until the replicas have caught up."""
        for path in self._paths:
            path.mode = PASS
        for cluster in (self.primary, *self.replicas):
            if not cluster.running:
                cluster.start()
        for cache in self.caches:
            if not cache.running:
                cache.start()
        for replica in self.replicas:
            replica.query("SELECT pg_wal_replay_resume()")
            self.catch_up(replica)

    def catch_up(self, replica: Cluster) -> None:
        """Wait until a replica has replayed all that the primary has flushed by now."""
        replica.catch_up(self.primary)

    def empty(self) -> None:
        """Remove every user, everywhere; no service may be running."""
        self.primary.query("TRUNCATE users", DATABASE)
        self._end_suspension()
        for replica in self.replicas:
            self.catch_up(replica)
        for cache in self.caches:
            with cache.client as client:
                client.flushall()

    def _end_suspension(self) -> None:
        """Let services use the cache at once, as if they had always done."""
        sql = "UPDATE cache_use SET history = %s, suspended_until = CURRENT_TIMESTAMP"
        history = ""
        for cache in self.caches:
            with cache.client as client:
                history = client.info("replication")["master_replid"]
        self.primary.query(sql, DATABASE, (history,))

    def destroy(self) -> None:
        for path in self._paths:
            path.close()
        for cluster in (*self.replicas, self.primary):
            cluster.destroy()
        for cache in self.caches:
            cache.destroy()

    def __enter__(self) -> "Stack":
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    # What can happen, each until its block ends.

    def faults(self, combination: Combination) -> dict[str, Fault]:
        """What can happen to that part of it."""
        faults: dict[str, Fault] = {
            "primary killed": self.primary_killed,
            "primary blackholed": self.primary_blackholed,
            "primary hears late": self.primary_hears_late,
            "primary hears again, late": self.primary_hears_again,
            "primary has rows held": self.rows_held,
            "worker stopped": self.worker_stopped,
            "service stopped": self.service_stopped,
        }
        if len(self.primary_paths) > 1:
            faults["primary has a silent address"] = self.primary_half_blackholed
        if combination.replica:
            faults |= {
                "replica paused": self.replica_paused,
                "replica killed": self.replica_killed,
                "replica blackholed": self.replica_blackholed,
            }
        if combination.cache:
            faults |= {
                "cache killed": self.cache_killed,
                "cache flushed": self.cache_flushed,
                "cache blackholed": self.cache_blackholed,
                "cache blackholed for one service": self.cache_half_blackholed,
                "cache hears again, late": self.cache_hears_again,
                "cache stopped": self.cache_stopped,
            }
        return faults

    @contextmanager
    def primary_killed(self) -> Iterator[None]:
        self.primary.kill()
        try:
            yield
        finally:
            self.primary.start()

    @contextmanager
    def primary_blackholed(self) -> Iterator[None]:
        with blackholed(*self.primary_paths):
            yield

    @contextmanager
    def primary_half_blackholed(self) -> Iterator[None]:
        """The first address is silent, and every connection has to be opened anew."""
        with blackholed(self.primary_path):
            for path in self.primary_paths:
                path.reset()
            yield

    @contextmanager
    def primary_hears_late(self) -> Iterator[None]:
        """What is sent on the connections that are open arrives, but not before the end."""
        networks_recover = [path.hold() for path in self.primary_paths]
        try:
            yield
        finally:
            for network_recovers in networks_recover:
                network_recovers.set()

    @contextmanager
    def primary_hears_again(self) -> Iterator[None]:
        with late(*self.primary_paths):
            yield

    @contextmanager
    def cache_hears_again(self) -> Iterator[None]:
        with late(*self.cache_paths):
            yield

    @contextmanager
    def worker_stopped(self) -> Iterator[None]:
        with _stopped(random.choice(random.choice(self._services).workers)):
            yield

    @contextmanager
    def service_stopped(self) -> Iterator[None]:
        service = random.choice(self._services)
        with _stopped(service.process.pid, *service.workers):
            yield

    @contextmanager
    def cache_stopped(self) -> Iterator[None]:
        with _stopped(self.cache.process.pid):
            yield

    @contextmanager
    def rows_held(self) -> Iterator[None]:
        """Somebody who does not commit has locked some of those rows that change."""
        newest = f"SELECT username FROM users ORDER BY created_at DESC LIMIT {HELD}"
        # In the order in which the service locks them.
        sql = f"SELECT FROM users WHERE username IN ({newest}) ORDER BY username FOR UPDATE"
        end = time.monotonic() + HELD_SECONDS
        with self.primary.holding(sql, DATABASE):
            yield
            time.sleep(max(0.0, end - time.monotonic()))

    @contextmanager
    def replica_paused(self) -> Iterator[None]:
        self.replica.query("SELECT pg_wal_replay_pause()")
        sql = "SELECT pg_get_wal_replay_pause_state() = 'paused'"
        eventually(lambda: self.replica.query(sql)[0][0])
        try:
            yield
        finally:
            self.replica.query("SELECT pg_wal_replay_resume()")

    @contextmanager
    def replica_killed(self) -> Iterator[None]:
        self.replica.kill()
        try:
            yield
        finally:
            self.replica.start()

    @contextmanager
    def replica_blackholed(self) -> Iterator[None]:
        with blackholed(self.replica_path):
            yield

    @contextmanager
    def cache_killed(self) -> Iterator[None]:
        self.cache.kill()
        try:
            yield
        finally:
            self.cache.start()

    @contextmanager
    def cache_flushed(self) -> Iterator[None]:
        with self.cache.client as client:
            client.flushall()
        yield

    @contextmanager
    def cache_blackholed(self) -> Iterator[None]:
        with blackholed(*self.cache_paths):
            yield

    @contextmanager
    def cache_half_blackholed(self) -> Iterator[None]:
        with blackholed(self.cache_path):
            yield


@contextmanager
def blackholed(*paths: Proxy) -> Iterator[None]:
    for path in paths:
        path.mode = BLACKHOLE
    try:
        yield
    finally:
        for path in paths:
            path.mode = PASS


@contextmanager
def late(*paths: Proxy) -> Iterator[None]:
    """Connections are reset when something is sent on them; that arrives, but late.

    It has arrived as the block begins, unless a connection is idle.
    """
    try:
        for path in paths:
            path.mode = LATE
        time.sleep(2 * max(path.lateness for path in paths))
        yield
    finally:
        for path in paths:
            path.mode = PASS


@contextmanager
def _stopped(*pids: int) -> Iterator[None]:
    """Processes have stood still, and go on as the block begins."""
    with ExitStack() as exits:
        for pid in pids:
            exits.enter_context(stopped(pid))
        time.sleep(STOPPED_SECONDS)
    yield
