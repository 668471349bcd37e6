"""PostgreSQL as Patroni runs it: members, one of which leads, and etcd, which says which one.

All of it is real and from Debian's packages, but for PostgreSQL, which is the wheel's. Paths that
can be made to fail lead to each member's PostgreSQL and REST interface, and from it to etcd.
"""

import http.client
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2

from tests.support.haproxy import HAPROXY, HAProxy, documented
from tests.support.postgres import Cluster
from tests.support.processes import eventually, free_port, stopped
from tests.support.programs import find
from tests.support.proxy import Proxy
from tests.support.service import migrate
from tests.support.stack import DATABASE, blackholed

PATRONI, PATRONICTL, ETCD = map(find, ("patroni", "patronictl", "etcd"))

#: What Patroni cannot run without, and is not there.
MISSING = [
    name
    for name, path in {
        "patroni": PATRONI,
        "patronictl": PATRONICTL,
        "etcd": ETCD,
        "haproxy": HAPROXY,
    }.items()
    if path is None
]

#: Seconds for which a leader keeps the lead that is not heard of. Patroni's own are 30, 10 and 10.
TTL = 6
LOOP_WAIT = 1
RETRY_TIMEOUT = 2


def version() -> tuple[int, ...]:
    """Of Patroni; () where it is missing."""
    if PATRONI is None:
        return ()
    said = subprocess.check_output([PATRONI, "--version"], text=True)
    return tuple(int(part) for part in said.split()[-1].split("."))


class Etcd:
    """One server of etcd."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        own = f"http://127.0.0.1:{free_port()}"
        url = f"http://127.0.0.1:{self.port}"
        assert ETCD
        with (directory / "etcd.log").open("w") as log:
            self._process = subprocess.Popen(
                [
                    *(ETCD, "--name", "one", "--data-dir", directory / "etcd"),
                    *("--listen-client-urls", url, "--advertise-client-urls", url),
                    *("--listen-peer-urls", own, "--initial-advertise-peer-urls", own),
                    *("--initial-cluster", f"one={own}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(lambda: get(self.port, "/health") == 200)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Member:
    """Patroni, and the PostgreSQL that it runs."""

    def __init__(self, name: str, etcd: Etcd) -> None:
        self.name = name
        self.postgres = Cluster()
        self.rest_port = free_port()
        self.path = Proxy(self.postgres.port)
        self.rest_path = Proxy(self.rest_port)
        self.etcd_path = Proxy(etcd.port)
        self.configuration = self.postgres.directory / "patroni.yml"
        # JSON is YAML.
        self.configuration.write_text(json.dumps(self._configuration()))
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        assert PATRONI
        with (self.postgres.directory / "log").open("a") as log:
            self._process = subprocess.Popen(
                [PATRONI, self.configuration],
                cwd=self.postgres.directory,
                env={
                    "PATH": os.environ["PATH"],
                    "LC_ALL": "C",
                    "HOME": str(self.postgres.directory),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **self.postgres.as_user,
            )

    @property
    def process(self) -> subprocess.Popen:
        assert self._process is not None
        return self._process

    @property
    def leads(self) -> bool:
        """Whether it has the lead, and its PostgreSQL takes writes."""
        return get(self.rest_port, "/primary") == 200

    def kill(self) -> None:
        """kill -9 of everything, as if the machine were gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self.postgres.running:
            self.postgres.kill()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop everything, as if the machine stood still, and let it go on."""
        with stopped(self.process.pid), self.postgres.paused():
            yield

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.process.kill()
            self.process.wait()
        for path in (self.path, self.rest_path, self.etcd_path):
            path.close()
        self.postgres.destroy()

    def _configuration(self) -> dict:
        trusted = {"username": "postgres"}
        return {
            "scope": "hello",
            "name": self.name,
            "restapi": {
                "listen": f"127.0.0.1:{self.rest_port}",
                "connect_address": f"127.0.0.1:{self.rest_path.port}",
            },
            # Asked like this, Patroni does not look for other ways to etcd.
            "etcd3": {"proxy": f"http://127.0.0.1:{self.etcd_path.port}"},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL,
                    "loop_wait": LOOP_WAIT,
                    "retry_timeout": RETRY_TIMEOUT,
                    "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True, "use_slots": True},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums", "no-sync"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.postgres.port}",
                "connect_address": f"127.0.0.1:{self.path.port}",
                "use_unix_socket": True,
                "data_dir": str(self.postgres.data),
                "bin_dir": str(self.postgres.programs),
                "pgpass": str(self.postgres.directory / "pgpass"),
                "authentication": {"superuser": trusted, "replication": trusted, "rewind": trusted},
                "basebackup": [{"checkpoint": "fast"}, "no-sync"],
                "pg_hba": [
                    "local all all trust",
                    "host all all 127.0.0.1/32 trust",
                    "host replication all 127.0.0.1/32 trust",
                ],
                "parameters": {
                    "unix_socket_directories": str(self.postgres.directory),
                    "shared_buffers": "32MB",
                    "max_connections": 100,
                },
            },
        }


class Patroni:
    """So many members in synchronous mode, with the schema, and HAProxy before them."""

    def __init__(self, members: int) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="hello-patroni-")
        directory = Path(self._directory.name)
        self._etcd = Etcd(directory)
        self.members = [Member(f"member-{n}", self._etcd) for n in range(1, members + 1)]
        # The first one makes the cluster: what else it would be is left to chance.
        self.members[0].start()
        eventually(lambda: self.members[0].leads, within=60, message=self.members[0].postgres.log)
        for member in self.members[1:]:
            member.start()
        self.settle()
        done = migrate(self.uri())
        assert done.returncode == 0, done.stderr
        self.primary_port, self.replica_port = free_port(), free_port()
        servers = "".join(
            f"    server {m.name} 127.0.0.1:{m.path.port} check port {m.rest_path.port}\n"
            for m in self.members
        )
        changes = {
            "bind :5432": f"bind 127.0.0.1:{self.primary_port}",
            "bind :5433": f"bind 127.0.0.1:{self.replica_port}",
            r"( {4}server .*\n)+": servers,
        }
        self._haproxy = HAProxy(directory, documented("OPTIONS /primary", changes))

    @property
    def leader(self) -> Member | None:
        """Who leads; None while nobody does."""
        return next((member for member in self.members if member.leads), None)

    def _followers(self, leader: Member | None) -> list[str]:
        """Of all other members, if they stream from the leader: whether each is synchronous."""
        if leader is None:
            return []
        sql = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'"
        try:
            states = [state for (state,) in leader.postgres.query(sql)]
        except psycopg2.Error:
            return []
        return states if len(states) == len(self.members) - 1 else []

    def all_follow(self) -> bool:
        """Whether somebody leads, and all others follow."""
        return bool(self._followers(self.leader))

    def settle(self) -> None:
        """Wait until somebody leads, and all others follow, one of them synchronously."""

        def settled() -> bool:
            leader = self.leader
            return "sync" in self._followers(leader) and self._knows_standby(leader)

        try:
            eventually(settled, within=60)
        except AssertionError:
            tails = [f"{m.name}:\n{m.postgres.log[-3000:]}" for m in self.members]
            raise AssertionError("\n".join(tails)) from None

    def _knows_standby(self, leader: Member | None) -> bool:
        """Whether somebody else may take over: Patroni has promised that it has all commits."""
        return any(get(m.rest_port, "/sync") == 200 for m in self.members if m is not leader)

    def uri(self, members: Sequence[Member] | None = None) -> str:
        """Of all members, in their order."""
        hosts = ",".join(f"127.0.0.1:{m.path.port}" for m in members or self.members)
        return f"postgresql://postgres@{hosts}/{DATABASE}"

    def settings(self, *, balanced: bool) -> dict[str, str]:
        """How a service is told of the members: by their names, or by HAProxy's."""
        if not balanced:
            return {"DB_URI": self.uri(), "DB_READ_URI": self.uri()}
        uri = f"postgresql://postgres@127.0.0.1:%d/{DATABASE}"
        return {"DB_URI": uri % self.primary_port, "DB_READ_URI": uri % self.replica_port}

    def query(self, sql: str) -> list[tuple]:
        """Ask the leader."""
        leader = eventually(lambda: self.leader, within=60)
        return leader.postgres.query(sql, DATABASE)

    def stored(self) -> dict[str, tuple[str, int]]:
        """Each user's date and version."""
        rows = self.query("SELECT username, date_of_birth::text, version FROM users")
        return {name: (born, version) for name, born, version in rows}

    def another_leads(self, than: Member) -> Member:
        """Wait until another member leads."""

        def found() -> Member | None:
            return next((m for m in self.members if m is not than and m.leads), None)

        return eventually(found, within=60, message=than.postgres.log[-3000:])

    # What can happen to the leader; as each block begins, it has happened.

    @contextmanager
    def killed(self, leader: Member) -> Iterator[None]:
        leader.kill()
        yield
        leader.start()

    @contextmanager
    def frozen(self, leader: Member) -> Iterator[None]:
        with leader.frozen():
            yield

    @contextmanager
    def cut_off(self, leader: Member) -> Iterator[None]:
        """From everybody."""
        with blackholed(leader.path, leader.rest_path, leader.etcd_path):
            yield

    @contextmanager
    def cut_off_from_etcd(self, leader: Member) -> Iterator[None]:
        """Services, and other members, reach it all the same."""
        with blackholed(leader.etcd_path):
            yield

    @contextmanager
    def switched_over(self, leader: Member) -> Iterator[None]:
        assert PATRONICTL
        done = subprocess.run(
            [
                *(PATRONICTL, "--config-file", leader.configuration),
                *("switchover", "--leader", leader.name, "--force", "hello"),
            ],
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield

    def close(self) -> None:
        self._haproxy.close()
        for member in self.members:
            member.close()
        self._etcd.close()
        self._directory.cleanup()

    def __enter__(self) -> "Patroni":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def get(port: int, path: str) -> int | None:
    """The status of an answer of a server on this machine; None if there is none."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=1)) as connection:
        try:
            connection.request("GET", path)
            with connection.getresponse() as response:
                return response.status
        except (OSError, http.client.HTTPException):
            return None
