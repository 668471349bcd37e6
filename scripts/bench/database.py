"""One PostgreSQL, and in it a database for each contestant, all with the same rows."""

from pathlib import Path

import psycopg2

from scripts.bench import usage
from tests.support.postgres import Cluster
from tests.support.service import migrate
from tests.support.valkey import Valkey

CONFIGURATION = """
max_connections = 2000
shared_buffers = 256MB
# Neither begins in the middle of somebody's measurement: `restore` does their work.
autovacuum = off
checkpoint_timeout = 1h
max_wal_size = 8GB
"""

#: The date of each user at the start; `contract.py` and `requests.lua` have the same rule.
BORN = "date '1970-01-01' + {number}::int % 10000"

#: In the order of the index, which is then built in one pass.
FILL = f"""
INSERT INTO users (username, date_of_birth)
SELECT 'user' || number, {BORN.format(number="number")}
FROM generate_series(0, {{users}} - 1) AS number
ORDER BY ('user' || number) COLLATE "C"
"""

_BORN = BORN.format(number="substr(username, 5)")
#: For a table that is too large to be filled anew.
REPAIR = f"""
DELETE FROM users WHERE username !~ '^user[0-9]+$';
UPDATE users SET date_of_birth = {_BORN} WHERE date_of_birth <> {_BORN}
"""
LARGE = 100_000

# Peers know two columns of the table and no version; the database fills in the others.
DEFAULTS = """
ALTER TABLE users
    ALTER version SET DEFAULT 1,
    ALTER created_at SET DEFAULT CURRENT_TIMESTAMP,
    ALTER updated_at SET DEFAULT CURRENT_TIMESTAMP
"""

# What a database has run since the server started, and how many rows hello's lookups found.
# pg_stat_statements counts all of it, and at once; the views of the statistics lag behind.
STATEMENTS = """
SELECT coalesce(sum(calls), 0)::bigint,
    coalesce(sum(rows) FILTER (WHERE query LIKE 'PREPARE find%%'), 0)::bigint
FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid WHERE datname = %s
"""


class Databases:
    """`users` rows in each database; on request a streaming replica, and a cache beside it."""

    def __init__(self, users: int, *, replica: bool = False, cache: bool = False) -> None:
        self._users = users
        self.cluster = Cluster().create()
        self.cluster.configure(CONFIGURATION)
        self._replica: Cluster | None = None
        self._cache: Valkey | None = None
        self.cluster.start()
        try:
            self._create_template()
            if replica:
                self._replica = Cluster().create_standby(self.cluster)
                self._replica.configure(CONFIGURATION)
                self._replica.start()
            if cache:
                self._cache = Valkey().start()
            self._connection = psycopg2.connect(self.cluster.uri())
        except BaseException:
            self._destroy_servers()
            raise
        self._connection.autocommit = True

    def _create_template(self) -> None:
        self.cluster.query("CREATE EXTENSION pg_stat_statements")
        self.cluster.query("CREATE DATABASE template")
        done = migrate(self.cluster.uri("template"))
        if done.returncode:
            raise RuntimeError(f"hello migrate failed: {done.stderr}")
        self.cluster.query(DEFAULTS, "template")
        self.cluster.query(FILL.format(users=self._users), "template")
        self.cluster.query("VACUUM ANALYZE users", "template")

    def create(self, contestant: str) -> dict[str, str]:
        """A new database for a contestant; returns the settings that lead there."""
        name = _name(contestant)
        self.cluster.query(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        strategy = "FILE_COPY" if self._users > LARGE else "WAL_LOG"
        self.cluster.query(f"CREATE DATABASE {name} TEMPLATE template STRATEGY {strategy}")
        settings = {"DB_URI": self.uri(contestant)}
        if self._replica:
            settings["DB_READ_URI"] = self._replica.uri(name)
        if self._cache:
            settings["CACHE_URI"] = self._cache.uri
        self._catch_up()
        return settings

    def uri(self, contestant: str) -> str:
        return self.cluster.uri(_name(contestant))

    def restore(self, contestant: str) -> None:
        """The rows as they were at the start, in a table without dead ones; an empty cache."""
        name = _name(contestant)
        self.cluster.query("CHECKPOINT")
        if self._users > LARGE:
            self.cluster.query(REPAIR, name)
        else:
            self.cluster.query(f"TRUNCATE users; {FILL.format(users=self._users)}", name)
        self.cluster.query("VACUUM ANALYZE users", name)
        self._catch_up()
        if self._cache:
            with self._cache.client as client:
                client.flushall()

    def _catch_up(self) -> None:
        if self._replica:
            self._replica.catch_up(self.cluster)

    def counted(self, contestant: str) -> dict[str, float]:
        """What was counted since the start: bytes of "wal", "statements", and rows "found"."""
        with self._connection.cursor() as cursor:
            # Over the same connection each time: starting a backend costs CPU time,
            # which would be found in the measurement.
            cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
            [(wal,)] = cursor.fetchall()
            cursor.execute(STATEMENTS, (_name(contestant),))
            [(statements, found)] = cursor.fetchall()
        return {"wal": int(wal), "statements": int(statements), "found": int(found)}

    def cpu_seconds(self) -> dict[str, float]:
        used = {"postgresql": usage.cpu_seconds(self.cluster.pid)}
        if self._replica:
            used["replica"] = usage.cpu_seconds(self._replica.pid)
        if self._cache and self._cache.process:
            used["cache"] = usage.cpu_seconds(self._cache.process.pid)
        return used

    @property
    def programs(self) -> Path:
        """Where pgbench is."""
        return self.cluster.programs

    @property
    def version(self) -> str:
        return str(self._connection.info.parameter_status("server_version"))

    @property
    def cache_version(self) -> str:
        if not self._cache:
            return ""
        with self._cache.client as client:
            return str(client.info("server")["valkey_version"])

    def destroy(self) -> None:
        self._connection.close()
        self._destroy_servers()

    def _destroy_servers(self) -> None:
        for server in (self._cache, self._replica, self.cluster):
            if server:
                server.destroy()


def _name(contestant: str) -> str:
    return "bench_" + contestant.replace("-", "_")
