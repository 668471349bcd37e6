"""PgBouncer before a PostgreSQL server, where the program is installed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.support.postgres import UNPRIVILEGED, Cluster
from tests.support.processes import end, eventually, free_port
from tests.support.programs import find

PROGRAM = find("pgbouncer")

needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="needs pgbouncer")

CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={upstream} user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
server_round_robin = {round_robin}
"""


class PgBouncer:
    """A pooler in `mode`, which every client may use as the server's superuser."""

    def __init__(self, cluster: Cluster, mode: str, *, round_robin: bool = False) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="hello-pgbouncer-"))
        self._cluster = cluster
        as_user: dict[str, Any] = {}
        if os.getuid() == 0:
            user = pwd.getpwnam(UNPRIVILEGED)
            as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.directory, user.pw_uid, user.pw_gid)
        file = self.directory / "pgbouncer.ini"
        values = {"upstream": cluster.port, "port": self.port, "mode": mode}
        file.write_text(CONFIGURATION.format(**values, round_robin=int(round_robin)))
        file.chmod(0o644)
        assert PROGRAM is not None
        with (self.directory / "log").open("w") as log:
            self.process = subprocess.Popen(
                [PROGRAM, str(file)], stdout=log, stderr=log, stdin=subprocess.DEVNULL, **as_user
            )
        eventually(self._answers)

    def uri(self, database: str = "postgres") -> str:
        return self._cluster.uri(database, port=self.port)

    def _answers(self) -> bool:
        try:
            psycopg2.connect(self.uri(), connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True

    def __enter__(self) -> "PgBouncer":
        return self

    def __exit__(self, *_: object) -> None:
        end(self.process)
        shutil.rmtree(self.directory)
