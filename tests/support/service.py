"""The service as it is deployed: gunicorn, in processes of its own."""

import fcntl
import http.client
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import quote

from tests.support.processes import eventually, free_port

#: Connections to the database per worker: two for reads and one for writes.
LANES = 3

#: What runs the service.
SERVE = (sys.executable, "-m", "hello", "serve")

#: A directory in which no setting is a file.
NO_SECRETS = "/"

#: Settings for tests that make requests wait until all of them have arrived.
PATIENT = {"STATEMENT_TIMEOUT": "20", "REQUEST_TIMEOUT": "30"}


#: Of a request; a string is UTF-8.
Body = str | bytes | None
Headers = Mapping[str, str]


class Answer:
    """A response that was read to its end."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> dict:
        document: dict = json.loads(self.body)
        return document


#: What to send: the arguments of `Client.request`.
Request = tuple[str, str] | tuple[str, str, str]


def get(username: str) -> tuple[str, str]:
    """What to send to ask for a user's birthday."""
    return "GET", f"/hello/{quote(username)}"


def put(username: str, born: str) -> tuple[str, str, str]:
    """What to send to store a user's date of birth."""
    return "PUT", f"/hello/{quote(username)}", json.dumps({"dateOfBirth": born})


def head(line: str, *fields: str) -> bytes:
    """The head of a request, with its `Host`; each character is a byte."""
    lines = [f"{line} HTTP/1.1", "Host: hello", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def day(number: int) -> str:
    """Dates to store that grow with their number."""
    return str(date(1900, 1, 1) + timedelta(number))


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int, timeout: float = 15.0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def request(
        self, method: str, path: str, body: Body = None, headers: Headers | None = None
    ) -> Answer:
        self.send(method, path, body, headers)
        return self.receive()

    def send(
        self, method: str, path: str, body: Body = None, headers: Headers | None = None
    ) -> None:
        """Send a request, and leave its answer to `receive`."""
        self._connection.request(method, path, body, headers or {})

    def receive(self) -> Answer:
        return Answer(self._connection.getresponse())

    @property
    def answered(self) -> bool:
        """If an answer has begun to arrive."""
        readable, _, _ = select.select([self._connection.sock], [], [], 0)
        return bool(readable)

    @property
    def delivered(self) -> bool:
        """If the kernel at the other end has acknowledged everything that was sent."""
        unacknowledged = fcntl.ioctl(self._connection.sock, termios.TIOCOUTQ, bytes(4))
        return not any(unacknowledged)

    def get(self, username: str) -> Answer:
        return self.request(*get(username))

    def put(self, username: str, born: str) -> Answer:
        return self.request(*put(username, born))

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Crowd:
    """Clients whose requests are all under way before the first answer is read."""

    def __init__(self, service: "Service", size: int) -> None:
        self._service = service
        self.clients = [service.client() for _ in range(size)]
        # From here on every connection is accepted, and has a greenlet that reads it.
        self.ask([("GET", "/health/live")] * size)

    def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """Send a request from each client; return the answers in the same order."""
        self.send(requests)
        return self.receive()

    def send(self, requests: Sequence[Request]) -> None:
        for client, request in zip(self.clients, requests, strict=True):
            client.send(*request)

    def settle(self) -> None:
        """Wait until the service has begun with everything that was sent."""
        eventually(lambda: all(client.delivered for client in self.clients))
        # The event loop sees this one after the others.
        with self._service.client() as client:
            assert client.request("GET", "/health/live").status == 200

    def receive(self) -> list[Answer]:
        return [client.receive() for client in self.clients]

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()


class Load:
    """How often each client of a load has called."""

    def __init__(self, clients: int) -> None:
        self.calls = [0] * clients

    def go_on(self) -> None:
        """Wait until no call is left that is under way now, and each client has made another."""
        before = list(self.calls)
        eventually(
            lambda: all(now > then + 1 for now, then in zip(self.calls, before, strict=True))
        )


class Served(Protocol):
    """Whom clients may connect to: a service, or what stands before some."""

    def client(self) -> Client: ...


@contextmanager
def load(service: Served, clients: int, request: Callable[[Client, int], object]) -> Iterator[Load]:
    """Call `request(client, number)` over and over until the block ends.

    Each of the `clients` has a number, a connection and a thread of its own. What
    `request` raises is raised at the end of the block.
    """
    done = threading.Event()
    load = Load(clients)

    def repeat(number: int) -> None:
        with service.client() as client:
            while not done.is_set():
                request(client, number)
                load.calls[number] += 1

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(repeat, number) for number in range(clients)]
        try:
            yield load
        finally:
            done.set()
    for future in running:
        future.result()


class _Stream(io.BufferedReader):
    """For HTTPResponse, which opens a stream for each answer and closes it after."""

    def makefile(self, mode: str) -> "_Stream":
        return self

    def close(self) -> None:
        pass


class Wire:
    """One connection and the bytes on it, for what no HTTP client sends."""

    def __init__(self, port: int, timeout: float = 15.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = _Stream(self.socket.makefile("rb", buffering=0))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def end(self) -> None:
        """Say that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def read(self, size: int) -> bytes:
        return self._stream.read(size)

    def answer(self, method: str = "GET") -> Answer:
        """The next final answer, to a request with `method`."""
        # It takes all that has `makefile`, whatever its type says.
        response = http.client.HTTPResponse(cast(socket.socket, self._stream), method=method)
        response.begin()
        return Answer(response)

    def closed(self) -> bool:
        """Wait for the server to close; true if it sent nothing before that."""
        try:
            return self._stream.read(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        io.BufferedReader.close(self._stream)
        self.socket.close()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Service:
    """gunicorn with the service, listening on a port of its own.

    `settings` are environment variables; nothing else of the test's environment but
    PATH reaches the process. Standard output and error go to `log`. Another release
    is run if `directory` has one.
    """

    def __init__(
        self, command: Sequence[str] = SERVE, directory: Path | None = None, /, **settings: str
    ) -> None:
        self.settings = settings
        self.port = free_port()
        self._log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            env={
                "PATH": os.environ["PATH"],
                "PORT": str(self.port),
                "ADMIN_PORT": "0",
                "SECRETS_DIR": NO_SECRETS,
                "PYTHONWARNINGS": os.environ.get("SERVICE_PYTHONWARNINGS", "default"),
            }
            | settings,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def wait_until(
        self, path: str = "/health/ready", status: int = 200, within: float = 20
    ) -> "Service":
        """Wait until `path` answers with `status`, and all the workers are there."""

        def answered() -> bool:
            assert self.process.poll() is None, f"the service ended:\n{self.log}"
            if len(self.workers) < int(self.settings.get("WEB_CONCURRENCY") or 1):
                return False
            try:
                with self.client(timeout=5) as client:
                    return client.request("GET", path).status == status
            except OSError:
                return False

        try:
            eventually(answered, within)
        except AssertionError:
            log = self.log
            self.stop()
            raise AssertionError(f"no {status} on {path}:\n{log}") from None
        return self

    def client(self, timeout: float = 15.0) -> Client:
        return Client(self.port, timeout)

    def connect(self, timeout: float = 15.0) -> socket.socket:
        """A raw connection, for what no HTTP client sends."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def wire(self, timeout: float = 15.0) -> Wire:
        return Wire(self.port, timeout)

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
        return self._wait(within)

    def _wait(self, within: float) -> int:
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

    def __exit__(self, *_: object) -> None:
        # Without the drain, which takes a moment and has tests of its own.
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
        self._wait(30)


def migrate(
    db_uri: str, *options: str, directory: Path | None = None, **settings: str
) -> subprocess.CompletedProcess:
    """Run `python -m hello migrate`, of another release if `directory` has one."""
    return subprocess.run(
        [sys.executable, "-m", "hello", "migrate", *options],
        env={"PATH": os.environ["PATH"], "DB_URI": db_uri, "SECRETS_DIR": NO_SECRETS} | settings,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def forget(username: str, **settings: str) -> subprocess.CompletedProcess:
    """Run `python -m hello forget`."""
    return subprocess.run(
        [sys.executable, "-m", "hello", "forget", "--", username],
        env={"PATH": os.environ["PATH"], "SECRETS_DIR": NO_SECRETS} | settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def check(**settings: str) -> dict:
    """What `python -m hello check` says, and `exit`, its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "hello", "check", "--json"],
        env={"PATH": os.environ["PATH"], "SECRETS_DIR": NO_SECRETS} | settings,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    said: dict = json.loads(done.stdout)
    return said | {"exit": done.returncode}
