"""A contestant's server: started as the tests start the service, and waited for by its answers."""

import subprocess
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from tests.support.processes import eventually, free_port
from tests.support.service import Service

ROOT = Path(__file__).resolve().parents[2]


class Server(Service):
    """The processes of one contestant, listening on a port of their own.

    `{port}` and `{workers}` in the command are filled in. Metrics are kept and shown, as they are
    where the service is deployed.
    """

    def __init__(
        self, command: tuple[str, ...], directory: Path, workers: int, **settings: str
    ) -> None:
        port = free_port()
        super().__init__(
            [part.format(port=port, workers=workers) for part in command],
            directory,
            PORT=str(port),
            ADMIN_PORT=str(free_port()),
            WEB_CONCURRENCY=str(workers),
            PYTHONPATH=str(ROOT),
            **settings,
        )
        self.port = port

    def check(self) -> None:
        """Raises RuntimeError if the server has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended:\n{self._end_of_log}")

    def wait(self) -> None:
        """Until it answers anything but a 5xx; raises RuntimeError."""

        def answered() -> bool:
            self.check()
            with suppress(OSError, HTTPException), self.client(timeout=5) as client:
                return client.get("nobody").status < 500
            return False

        try:
            eventually(answered, within=30)
        except AssertionError:
            raise RuntimeError(f"no answer within 30 s:\n{self._end_of_log}") from None

    def stop(self, within: float = 10.0) -> int:
        """Terminate; kill it if it does not end."""
        with suppress(subprocess.TimeoutExpired):
            super().stop(within)
        return self.process.returncode

    @property
    def _end_of_log(self) -> str:
        return self.log[-2000:]
