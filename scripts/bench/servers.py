"""Starting and stopping the processes of a contestant."""

import os
import signal
import subprocess
import tempfile
from http.client import HTTPConnection
from pathlib import Path

from scripts.bench import usage
from tests.support.processes import eventually, free_port

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """The processes of one contestant, listening on a port of their own.

    `{port}` and `{workers}` in the command are filled in. The server's environment is
    `settings`, PORT, WEB_CONCURRENCY and what every program needs.
    """

    def __init__(
        self, command: tuple[str, ...], directory: Path, workers: int, **settings: str
    ) -> None:
        self.port = free_port()
        self.workers = workers
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [part.format(port=self.port, workers=workers) for part in command],
            cwd=directory,
            env={
                "PATH": os.environ["PATH"],
                "PORT": str(self.port),
                "WEB_CONCURRENCY": str(workers),
                "PYTHONPATH": str(ROOT),
                "SECRETS_DIR": "/",
            }
            | settings,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()[-2000:]

    def check(self) -> None:
        """Raises RuntimeError if the server has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the server ended:\n{self.log}")

    def wait(self) -> None:
        """Until it answers anything but a 5xx; raises RuntimeError."""

        def answered() -> bool:
            self.check()
            connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/hello/nobody")
                return connection.getresponse().status < 500
            except OSError:
                return False
            finally:
                connection.close()

        try:
            eventually(answered, within=30)
        except AssertionError:
            raise RuntimeError(f"no answer within 30 s:\n{self.log}") from None

    def stop(self) -> None:
        members = usage.tree(self.pid) if self._process.poll() is None else []
        if members:
            self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            for pid in members:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._process.wait()
        self._log.close()
