"""The machine and the versions: without them a figure means nothing."""

import json
import os
import platform
import subprocess
import sys
import sysconfig
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from hello.settings import Settings
from scripts.bench.registry import PREPARED
from scripts.bench.servers import ROOT

HERE = Path(__file__).parent
OURS = (
    "falcon",
    "gevent",
    "gunicorn",
    "httptools",
    "msgspec",
    "peewee",
    "psycopg2-binary",
    "redis",
)


def about() -> dict[str, str]:
    facts = {
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{_processor()}, {platform.system()} {platform.release()}",
        "cores": str(os.cpu_count()),
        "load at the start": f"{os.getloadavg()[0]:.2f}",
        "hello": _first_line("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "Python": f"{platform.python_version()}, {_build()}",
        "packages": ", ".join(f"{name} {version(name)}" for name in OURS),
        "READ_LANES": str(Settings.load().read_lanes),
        "wrk": _first_line("wrk", "-v").removeprefix("wrk ").partition(" Copyright")[0],
        "h2load": _first_line("h2load", "--version").removeprefix("h2load "),
        "Node": _first_line("node", "--version"),
        "Go": _first_line("go", "version").removeprefix("go version "),
        "pgx": _first_line("dpkg-query", "-Wf", "${Version}", "golang-github-jackc-pgx-v4-dev"),
    }
    if PREPARED.exists():
        facts["peers"] = _pinned()
    return {name: fact for name, fact in facts.items() if fact}


def optimised() -> bool:
    """Whether the interpreter was built with --enable-optimizations, as those of Debian and of
    the official images are; without it, Python code takes half as much time again."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return "--enable-optimizations" in options or sys.base_prefix == "/usr"


def _build() -> str:
    return "optimised" if optimised() else "built without --enable-optimizations"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def _pinned() -> str:
    """What `prepare` installs: the first paragraph, and what Fastify's file names."""
    text = (HERE / "requirements.txt").read_text().split("\n\n")[0]
    python = [line.replace("==", " ") for line in text.splitlines() if not line.startswith("#")]
    package = json.loads((HERE / "contestants" / "fastify" / "package.json").read_text())
    return ", ".join(python + [f"{name} {pin}" for name, pin in package["dependencies"].items()])


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return next(iter(done.stdout.splitlines()), "")
