"""The contestants.

Each is a server that keeps the contract of `contract.py`, written and tuned as its
users would; those that need more than the service's own virtual environment find it
where `scripts/bench/prepare` puts it. Pools hold 32 connections per worker: with the
usual 10, PUTs wait for commits rather than for the server.
"""

import shutil
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from scripts.bench.servers import ROOT

CONTESTANTS = Path(__file__).parent / "contestants"
PREPARED = ROOT / ".bench-venv"


class Store(Enum):
    """Where a contestant keeps its users."""

    POSTGRESQL = "PostgreSQL"
    MEMORY = "the memory of its one process"
    NOWHERE = "nowhere"


@dataclass(frozen=True)
class Contestant:
    name: str
    #: For the report: what it is made of.
    stack: str
    #: See `servers.Server`; empty for pgbench, which needs no server.
    command: tuple[str, ...]
    directory: Path = ROOT
    store: Store = Store.POSTGRESQL
    #: It cannot run unless these exist; `install` says how to get them.
    needs: tuple[Path, ...] = ()
    install: str = "scripts/bench/prepare"
    #: Which of our contestants it is compared with.
    ours: str = "hello"
    #: Whether it reads from a replica, and whether it has a cache.
    replica: bool = False
    cache: bool = False

    @property
    def is_limit(self) -> bool:
        """Whether it is no server, but what is left without some part of one."""
        return self.stack.startswith("limit:")

    @property
    def missing(self) -> str | None:
        """Why it cannot run here."""
        for path in self.needs:
            if not path.exists():
                return f"{path.relative_to(ROOT)} is missing; get it with {self.install}"
        if self.command and not shutil.which(self.command[0]):
            return f"{self.command[0]} is missing; get it with {self.install}"
        return None


def _packages(*names: str) -> tuple[Path, ...]:
    """Where the interpreter of `prepare` has these packages, by the names they are imported by."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return tuple(PREPARED / "lib" / version / "site-packages" / name for name in names)


_LISTEN = ("--bind", "127.0.0.1:{port}", "--workers", "{workers}")
_GUNICORN = ("-m", "gunicorn", *_LISTEN, "--no-control-socket", "--log-level", "warning")
_GEVENT = (sys.executable, *_GUNICORN, "--worker-class", "gevent", "app:app")
_BARE = "scripts.bench.contestants.bare.worker.Bare"
_SERVE = (sys.executable, "-m", "hello", "serve")
_OUR_WORKER = (sys.executable, "-m", "gunicorn", "-c", "python:hello.server")
_UVICORN = (
    *(f"{PREPARED}/bin/uvicorn", "--port", "{port}", "--workers", "{workers}"),
    *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
    "app:app",
)
_GRANIAN = (
    *(f"{PREPARED}/bin/granian", "--interface", "asgi", "--port", "{port}"),
    *("--workers", "{workers}", "--loop", "uvloop", "--http", "1", "--no-ws"),
    *("--log-level", "warning", "app:app"),
)

ALL = (
    Contestant("hello", "the service, PostgreSQL", _SERVE),
    Contestant(
        "hello-unbatched",
        "the service, one prepared statement per request",
        (*_OUR_WORKER, "app:wsgi()"),
        CONTESTANTS / "hello_unbatched",
    ),
    Contestant("hello-sqlite", "the service, SQLite in memory", _SERVE, store=Store.MEMORY),
    Contestant(
        "naive",
        "Falcon + Peewee as in its manual, gunicorn's gevent worker",
        _GEVENT,
        CONTESTANTS / "naive",
    ),
    Contestant(
        "naive-sqlite",
        "the same with SQLite in memory",
        _GEVENT,
        CONTESTANTS / "naive",
        store=Store.MEMORY,
        ours="hello-sqlite",
    ),
    Contestant(
        "flask",
        "Flask + SQLAlchemy, gunicorn's threads",
        (
            *(f"{PREPARED}/bin/python", *_GUNICORN),
            *("--worker-class", "gthread", "--threads", "8", "app:app"),
        ),
        CONTESTANTS / "flask",
        needs=_packages("flask", "sqlalchemy", "gunicorn"),
    ),
    Contestant(
        "fastapi",
        "FastAPI + asyncpg, uvicorn with uvloop and httptools",
        _UVICORN,
        CONTESTANTS / "fastapi",
        needs=_packages("fastapi", "asyncpg", "uvicorn", "uvloop", "httptools"),
    ),
    Contestant(
        "starlette",
        "Starlette + asyncpg, uvicorn with uvloop and httptools",
        _UVICORN,
        CONTESTANTS / "starlette",
        needs=_packages("starlette", "asyncpg", "uvicorn", "uvloop", "httptools"),
    ),
    Contestant(
        "blacksheep",
        "BlackSheep + asyncpg, granian with uvloop",
        _GRANIAN,
        CONTESTANTS / "blacksheep",
        needs=_packages("blacksheep", "asyncpg", "granian", "uvloop"),
    ),
    Contestant(
        "fastify",
        "Node: Fastify + pg",
        ("node", "server.js"),
        CONTESTANTS / "fastify",
        needs=(CONTESTANTS / "fastify" / "node_modules" / "fastify",),
        install="Node and scripts/bench/prepare",
    ),
    Contestant(
        "go",
        "Go: net/http + pgx, as many cores as the others have workers",
        (f"{PREPARED}/bin/hello-go",),
        CONTESTANTS / "go",
        needs=(PREPARED / "bin" / "hello-go",),
        install=(
            "apt-get install golang-go golang-github-jackc-pgx-v4-dev and scripts/bench/prepare"
        ),
    ),
    Contestant(
        "falcon-constant",
        "limit: Falcon without a database, gunicorn's gevent worker",
        _GEVENT,
        CONTESTANTS / "falcon-constant",
        store=Store.NOWHERE,
    ),
    Contestant(
        "falcon-constant-hello",
        "limit: the same on the service's worker",
        (*_OUR_WORKER, "app:app"),
        CONTESTANTS / "falcon-constant",
        store=Store.NOWHERE,
    ),
    Contestant(
        "falcon-constant-bare",
        "limit: the same on a worker without a check or a deadline",
        (sys.executable, *_GUNICORN, "--worker-class", _BARE, "app:app"),
        CONTESTANTS / "falcon-constant",
        store=Store.NOWHERE,
    ),
    Contestant(
        "bare",
        "limit: Falcon and batches on that worker; no ids, metrics, checks, deadlines or faults",
        (sys.executable, *_GUNICORN, "--worker-class", _BARE, "app:wsgi()"),
        CONTESTANTS / "bare",
    ),
    Contestant("pgbench", "limit: PostgreSQL alone, prepared statements", ()),
    Contestant("hello-replica", "the service, reading from a replica", _SERVE, replica=True),
    Contestant("hello-cache", "the service with a cache", _SERVE, cache=True),
    Contestant(
        "hello-replica-cache",
        "the service with a cache, reading from a replica",
        _SERVE,
        replica=True,
        cache=True,
    ),
)

BY_NAME = {one.name: one for one in ALL}
#: With a database of their own: their primary has a replica to feed, or a cache beside it.
DEPLOYMENTS = tuple(one.name for one in ALL if one.replica or one.cache)
