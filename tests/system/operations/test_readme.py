"""What README.md tells people to type: typed here, in its order."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.checkout import ROOT, copy_to
from tests.support.postgres import Cluster
from tests.support.processes import free_port
from tests.support.service import Service

README = (ROOT / "README.md").read_text("utf-8")

#: Blocks that are not typed here, and why.
NOT_RUN = {
    "git clone https://example.com/hello\ncd hello\n": "the address is a placeholder",
    "make build\nmake port=8080 run\n": "needs a Docker daemon",
    "kubectl create secret generic database --from-literal=DB_URI='postgresql://…'\n"
    "make org=revolut upload-prod\n"
    "kubectl apply -f deployment.yml\n"
    "kubectl rollout status deployment/revolut\n": "needs a Docker daemon, a registry, a cluster",
}
#: Blocks that go on until they are stopped.
SERVES = {"make port=8080 dev\n", "WEB_CONCURRENCY=2 .venv/bin/hello serve\n"}


class Block(NamedTuple):
    """Commands, and what is shown of their output; None if nothing is."""

    commands: str
    output: str | None


def read(document: str) -> list[Block]:
    blocks: list[Block] = []
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", document, re.M | re.S):
        if language == "sh":
            blocks.append(Block(text, None))
        else:
            assert language == "text", f"neither commands nor their output: {text}"
            assert blocks[-1].output is None
            blocks[-1] = blocks[-1]._replace(output=text)
    return blocks


BLOCKS = read(README)


def days_until_the_birthday(today: date) -> int:
    """Alice's is on 17 May."""
    following = today.replace(month=5, day=17)
    return ((following if following >= today else following.replace(today.year + 1)) - today).days


def test_the_days_that_are_shown_are_those_of_the_day_that_is_named() -> None:
    said = re.search(r"in (\d+) day\(s\).*?That was on (\d+ \w+ \d+)\.", README, re.S)
    assert said
    day = datetime.strptime(said[2], "%d %B %Y").date()
    assert int(said[1]) == days_until_the_birthday(day)


def pattern(shown: str, today: date) -> str:
    """What the output must match: the days are today's, and times are any."""
    days = days_until_the_birthday(today)
    message = f"Your birthday is in {days} day(s)" if days else "Happy birthday!"
    text = re.sub(r"Your birthday is in \d+ day\(s\)", message, shown).rstrip("\n")
    text = re.escape(text).replace("…", "(?s:.*)")
    return re.sub(r"(\\ )+\d+\\ ms", r"\\ +\\d+\\ ms", text) + r"\s*"


def test_blocks_that_are_not_typed_are_there() -> None:
    commands = [block.commands for block in BLOCKS]
    assert len(set(commands)) == len(commands)
    assert NOT_RUN.keys() | SERVES <= set(commands)
    assert len(commands) > 2 * len(NOT_RUN)


class Reader:
    """Somebody who types what stands there, on ports of their own."""

    def __init__(self, directory: Path, cluster: Cluster) -> None:
        self._directory = directory
        self._ports = {"8080": str(free_port()), "9090": str(free_port())}
        #: What is typed otherwise: where the service listens, and where PostgreSQL does.
        self._instead = self._ports | {"@localhost/": f"@localhost:{cluster.port}/"}
        self._environ = {
            "PATH": f"{cluster.programs}:{os.environ['PATH']}",
            "HOME": str(directory),
            "PORT": self._ports["8080"],
            "ADMIN_PORT": self._ports["9090"],
            # For psql: whoever may create roles.
            "PGHOST": "127.0.0.1",
            "PGPORT": str(cluster.port),
            "PGUSER": "postgres",
        }
        #: What a shell remembers.
        self._exports = ""

    def _script(self, commands: str) -> list[str]:
        script = self._exports + commands
        for usual, own in self._instead.items():
            script = script.replace(usual, own)
        return ["sh", "-euc", script]

    def type(self, block: Block) -> str:
        """Standard output, of commands that must succeed."""
        done = subprocess.run(
            self._script(block.commands),
            cwd=self._directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, f"{block.commands}{done.stdout}{done.stderr}"
        lines = block.commands.splitlines(keepends=True)
        self._exports += "".join(line for line in lines if line.startswith("export "))
        return done.stdout

    @contextmanager
    def serving(self, block: Block) -> Iterator[Service]:
        command = ["setsid", *self._script(block.commands)]
        service = Service(command, self._directory, **self._environ)
        service.port = int(self._ports["8080"])
        try:
            yield service.wait_until()
        finally:
            # Ctrl-C: the terminal tells everybody in its session.
            with suppress(ProcessLookupError):
                os.killpg(service.process.pid, signal.SIGINT)
            service.stop()


def matches(block: Block, output: str, day: date) -> bool:
    return block.output is None or re.fullmatch(pattern(block.output, day), output) is not None


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_what_is_typed_gives_what_is_shown(tmp_path: Path, cluster: Cluster) -> None:
    names = ("hello", "scripts", "requirements", "tests", "Makefile", "setup.cfg", "pyproject.toml")
    reader = Reader(copy_to(tmp_path, *names), cluster)
    blocks = [block for block in BLOCKS if block.commands not in NOT_RUN]
    starts = [number for number, block in enumerate(blocks) if block.commands in SERVES]
    assert starts[0] == 0, "nothing serves yet"
    for start, end in zip(starts, [*starts[1:], len(blocks)], strict=True):
        with reader.serving(blocks[start]) as service:
            for block in blocks[start + 1 : end]:
                output = reader.type(block)
                # Midnight may have come between the two.
                today = datetime.now(UTC).date()
                days = (today, today - timedelta(1))
                assert any(matches(block, output, day) for day in days), f"{block}\n{output}"
            with service.client() as client:
                assert client.request("GET", "/").body == b"Hello, world!"


def test_other_output_is_noticed() -> None:
    day = date(2026, 11, 28)
    shown = Block("", '{"message": "Hello, alice! Your birthday is in 175 day(s)"}\n')
    assert matches(shown, '{"message": "Hello, alice! Your birthday is in 170 day(s)"}', day)
    assert not matches(shown, '{"message": "Hello, alice! Your birthday is in 175 day(s)"}', day)
    assert matches(shown, '{"message": "Hello, alice! Happy birthday!"}', date(2027, 5, 17))
    assert not matches(shown, "", day)
    check = Block("", "primary    ok        14 ms\nschema     ok\n")
    assert matches(check, "primary    ok         3 ms\nschema     ok\n", day)
    assert not matches(check, "primary    ok         3 ms\nschema     old\n", day)
    head = Block("", "HTTP/1.1 204 No Content\n…\n")
    assert matches(head, "HTTP/1.1 204 No Content\nServer: gunicorn\n\n", day)
    assert not matches(head, "HTTP/1.1 200 OK\n\n", day)
