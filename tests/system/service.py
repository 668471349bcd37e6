"""The service as it is deployed: gunicorn, in processes of its own."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from tests.system.processes import eventually, free_port


class Answer:
    """A response that was read to its end."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> dict:
        return json.loads(self.body)


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int, timeout: float = 15.0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def request(self, method: str, path: str, body=None, headers=None) -> Answer:
        self._connection.request(method, path, body, headers or {})
        return Answer(self._connection.getresponse())

    def get(self, username: str) -> Answer:
        return self.request("GET", f"/hello/{quote(username)}")

    def put(self, username: str, born: str) -> Answer:
        return self.request("PUT", f"/hello/{quote(username)}", json.dumps({"dateOfBirth": born}))

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Service:
    """gunicorn with the service, listening on a port of its own.

    `settings` are environment variables; nothing else of the test's environment but
    PATH reaches the process. Standard output and error go to `log`.
    """

    def __init__(self, *, command: list[str] | None = None, **settings: str) -> None:
        self.port = free_port()
        self._log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115
        self.process = subprocess.Popen(
            command or [sys.executable, "-m", "hello", "serve"],
            env={
                "PATH": os.environ["PATH"],
                "PORT": str(self.port),
                "SECRETS_DIR": "/nonexistent",
                "PYTHONWARNINGS": os.environ.get("SERVICE_PYTHONWARNINGS", "default"),
            }
            | settings,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def wait_until(self, path: str = "/health/ready", status: int = 200) -> "Service":
        """Wait until `path` answers with `status`."""

        def answered() -> bool:
            assert self.process.poll() is None, f"the service ended:\n{self.log}"
            try:
                with self.client(timeout=5) as client:
                    return client.request("GET", path).status == status
            except OSError:
                return False

        eventually(answered, within=20, message=f"no {status} on {path}:\n{self.log}")
        return self

    def client(self, timeout: float = 15.0) -> Client:
        return Client(self.port, timeout)

    def connect(self, timeout: float = 15.0) -> socket.socket:
        """A raw connection, for what no HTTP client sends."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text()

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers."""
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def terminate(self) -> None:
        """Send SIGTERM, as `docker stop` and Kubernetes do."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self, within: float = 30.0) -> int:
        """Terminate, and return the exit status."""
        if self.process.poll() is None:
            self.terminate()
        try:
            return self.process.wait(within)
        finally:
            if self.process.poll() is None:
                for pid in (self.process.pid, *self.workers):
                    os.kill(pid, signal.SIGKILL)
                self.process.wait()
            self._log.close()

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_) -> None:
        self.stop()


def migrate(db_uri: str, *options: str) -> subprocess.CompletedProcess:
    """Run `python -m hello migrate`."""
    return subprocess.run(
        [sys.executable, "-m", "hello", "migrate", *options],
        env={"PATH": os.environ["PATH"], "DB_URI": db_uri, "SECRETS_DIR": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=120,
    )
