"""One PostgreSQL, and in it a database for each contestant, all with the same rows."""

import psycopg2

from tests.system.postgres import Cluster
from tests.system.service import migrate

CONFIGURATION = """
max_connections = 1000
shared_buffers = 256MB
# Neither begins in the middle of somebody's measurement: `restore` does their work.
autovacuum = off
checkpoint_timeout = 1h
max_wal_size = 8GB
"""

#: The rows; `contract.py` and `requests.lua` have the same rule.
FILL = """
INSERT INTO users (username, date_of_birth)
SELECT 'user' || number, date '1970-01-01' + number % 10000
FROM generate_series(0, {users} - 1) AS number
"""

# Peers know two columns of the table and no version; the database fills in the others.
DEFAULTS = """
ALTER TABLE users
    ALTER version SET DEFAULT 1,
    ALTER created_at SET DEFAULT CURRENT_TIMESTAMP,
    ALTER updated_at SET DEFAULT CURRENT_TIMESTAMP
"""


class Databases:
    def __init__(self, users: int) -> None:
        self._fill = FILL.format(users=users)
        self.cluster = Cluster().create()
        self.cluster.configure(CONFIGURATION)
        self.cluster.start()
        try:
            self._create_template()
            self._connection = psycopg2.connect(self.cluster.uri())
        except BaseException:
            self.cluster.destroy()
            raise
        self._connection.autocommit = True

    def _create_template(self) -> None:
        self.cluster.query("CREATE DATABASE template")
        done = migrate(self.cluster.uri("template"))
        if done.returncode:
            raise RuntimeError(f"hello migrate failed: {done.stderr}")
        self.cluster.query(DEFAULTS, "template")

    def create(self, contestant: str) -> str:
        """A new database for a contestant; returns its URI."""
        name = _name(contestant)
        self.cluster.query(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self.cluster.query(f"CREATE DATABASE {name} TEMPLATE template")
        self.restore(contestant)
        return self.uri(contestant)

    def uri(self, contestant: str) -> str:
        return self.cluster.uri(_name(contestant))

    def restore(self, contestant: str) -> None:
        """The rows as they were at the start, in a table without dead ones."""
        name = _name(contestant)
        self.cluster.query("CHECKPOINT")
        self.cluster.query(f"TRUNCATE users; {self._fill}", name)
        self.cluster.query("VACUUM ANALYZE users", name)

    def wal_bytes(self) -> int:
        """Everything ever written to the log."""
        with self._connection.cursor() as cursor:
            # Over the same connection each time: starting a backend costs CPU time,
            # which would be found in the measurement.
            cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
            return int(cursor.fetchone()[0])

    @property
    def version(self) -> str:
        return self._connection.info.parameter_status("server_version")

    def destroy(self) -> None:
        self._connection.close()
        self.cluster.destroy()


def _name(contestant: str) -> str:
    return "bench_" + contestant.replace("-", "_")
