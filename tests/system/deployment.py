"""Everything that the service talks to, and what can happen to it."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

from tests.system.postgres import Cluster
from tests.system.processes import eventually
from tests.system.proxy import BLACKHOLE, PASS, Proxy
from tests.system.service import Service, migrate
from tests.system.valkey import Valkey

Fault = Callable[[], AbstractContextManager[None]]

DATABASE = "postgres"

#: How many rows somebody holds, of those that are used most.
HELD = 3


class Combination(NamedTuple):
    """Which of the optional parts the service uses."""

    replica: bool = False
    cache: bool = False

    def __str__(self) -> str:
        parts = [name for name, used in self._asdict().items() if used]
        return " + ".join(["primary", *parts])


COMBINATIONS = [Combination(*used) for used in itertools.product((False, True), repeat=2)]


class Deployment:
    """A primary, and perhaps replicas and a cache, each reached by a network path of its own."""

    def __init__(self, *, replicas: int = 0, cache: bool = False) -> None:
        self.primary = Cluster().create().start()
        done = migrate(self.primary.uri(DATABASE))
        assert done.returncode == 0, done.stderr
        self.primary.query("CREATE EXTENSION pg_stat_statements", DATABASE)
        self.replicas = [Cluster().create_standby(self.primary).start() for _ in range(replicas)]
        self.cache = Valkey().start() if cache else None
        self.primary_path = Proxy(self.primary.port)
        self.replica_paths = [Proxy(replica.port) for replica in self.replicas]
        #: Of two services, each has its own.
        self.cache_paths = [Proxy(self.cache.port) for _ in range(2)] if self.cache else []
        self._end_suspension()

    @property
    def replica(self) -> Cluster:
        return self.replicas[0]

    @property
    def replica_path(self) -> Proxy:
        return self.replica_paths[0]

    @property
    def cache_path(self) -> Proxy:
        return self.cache_paths[0]

    @property
    def _paths(self) -> list[Proxy]:
        return [self.primary_path, *self.replica_paths, *self.cache_paths]

    @property
    def settings(self) -> dict[str, str]:
        """How the service is told of all this."""
        settings = {"DB_URI": self.primary.uri(DATABASE, port=self.primary_path.port)}
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

    def service(self, *, command: list[str] | None = None, **settings: str) -> Service:
        """Start the service on all of it, and wait until it is ready."""
        return Service(command=command, **(self.settings | settings)).wait_until()

    @contextmanager
    def services(
        self, combination: Combination, *, command: list[str] | None = None, **settings: str
    ) -> Iterator[list[Service]]:
        """Two services of two workers each, on some of it."""
        settings["WEB_CONCURRENCY"] = "2"
        if not combination.replica:
            settings["DB_READ_URI"] = ""
        uris = ["", ""]
        if combination.cache:
            uris = [self._cache_uri(path) for path in self.cache_paths]
        with (
            self.service(command=command, **(settings | {"CACHE_URI": uris[0]})) as one,
            self.service(command=command, **(settings | {"CACHE_URI": uris[1]})) as other,
        ):
            yield [one, other]

    def stored(self) -> dict[str, tuple[str, int]]:
        """What the primary holds: each user's date and version."""
        sql = "SELECT username, date_of_birth::text, version FROM users"
        return {name: (born, version) for name, born, version in self.primary.query(sql, DATABASE)}

    def heal(self) -> None:
        """End whatever happens, and wait until the replicas have caught up."""
        for path in self._paths:
            path.mode = PASS
        for cluster in (self.primary, *self.replicas):
            if not cluster.running:
                cluster.start()
        if self.cache and not self.cache.running:
            self.cache.start()
        for replica in self.replicas:
            replica.query("SELECT pg_wal_replay_resume()")
            self.catch_up(replica)

    def catch_up(self, replica: Cluster) -> None:
        """Wait until a replica has replayed all that the primary has flushed by now."""
        [(flushed,)] = self.primary.query("SELECT pg_current_wal_flush_lsn()")
        sql = f"SELECT pg_last_wal_replay_lsn() >= '{flushed}'"
        eventually(lambda: replica.query(sql)[0][0], within=30)

    def empty(self) -> None:
        """Remove every user, everywhere; no service may be running."""
        self.primary.query("TRUNCATE users", DATABASE)
        self._end_suspension()
        for replica in self.replicas:
            self.catch_up(replica)
        if self.cache:
            with self.cache.client as client:
                client.flushall()

    def _end_suspension(self) -> None:
        """Let services use the cache at once, as if they had always done."""
        sql = "UPDATE cache_use SET history = %s, suspended_until = CURRENT_TIMESTAMP"
        history = ""
        if self.cache:
            with self.cache.client as client:
                history = client.info("replication")["master_replid"]
        self.primary.query(sql, DATABASE, (history,))

    def destroy(self) -> None:
        for path in self._paths:
            path.close()
        for server in (*self.replicas, self.primary, self.cache):
            if server:
                server.destroy()

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(self, *_) -> None:
        self.destroy()

    # What can happen, each until its block ends.

    def faults(self, combination: Combination) -> dict[str, Fault]:
        """What can happen to that part of it."""
        faults: dict[str, Fault] = {
            "primary killed": self.primary_killed,
            "primary blackholed": self.primary_blackholed,
            "primary hears late": self.primary_hears_late,
            "primary has rows held": self.rows_held,
        }
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
        with blackholed(self.primary_path):
            yield

    @contextmanager
    def primary_hears_late(self) -> Iterator[None]:
        """What is sent on the connections that are open arrives, but not before the end."""
        network_recovers = self.primary_path.hold()
        try:
            yield
        finally:
            network_recovers.set()

    @contextmanager
    def rows_held(self) -> Iterator[None]:
        """Somebody who does not commit has locked some of those rows that change."""
        newest = f"SELECT username FROM users ORDER BY created_at DESC LIMIT {HELD}"
        # In the order in which the service locks them.
        sql = f"SELECT FROM users WHERE username IN ({newest}) ORDER BY username FOR UPDATE"
        with self.primary.holding(sql, DATABASE):
            yield

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
        with blackholed(self.cache_paths[0]), blackholed(self.cache_paths[1]):
            yield

    @contextmanager
    def cache_half_blackholed(self) -> Iterator[None]:
        with blackholed(self.cache_path):
            yield


@contextmanager
def blackholed(path: Proxy) -> Iterator[None]:
    path.mode = BLACKHOLE
    try:
        yield
    finally:
        path.mode = PASS


def batches(cluster: Cluster) -> int:
    """How many batches of reads a server has run since it started."""
    return _counted(cluster, "PREPARE find%")[0]


def _counted(cluster: Cluster, like: str) -> tuple[int, int]:
    """How often statements were run, and how many rows they returned."""
    sql = (
        "SELECT coalesce(sum(calls), 0)::int, coalesce(sum(rows), 0)::int"
        " FROM pg_stat_statements WHERE query LIKE %s"
    )
    return cluster.query(sql, DATABASE, (like,))[0]


class Usage(NamedTuple):
    """What reads have cost each server since it started."""

    primary_rows: int
    primary_batches: int
    fences: int
    replica_batches: int
    cache_hits: int

    @classmethod
    def of(cls, deployment: Deployment) -> "Usage":
        """All servers must be running."""
        batches, rows = _counted(deployment.primary, "PREPARE find%")
        fences, _ = _counted(deployment.primary, "%pg_current_wal_flush_lsn()%")
        replica_batches = sum(_counted(r, "PREPARE find%")[0] for r in deployment.replicas)
        hits = 0
        if deployment.cache:
            with deployment.cache.client as client:
                hits = client.info("stats")["keyspace_hits"]
        return cls(rows, batches, fences, replica_batches, hits)

    def __sub__(self, before: "Usage") -> "Usage":
        return Usage(*(b - a for a, b in zip(before, self, strict=True)))
