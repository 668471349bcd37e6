"""HAProxy, with any configuration."""

import socket
import subprocess
from pathlib import Path

from tests.support.processes import eventually
from tests.support.programs import find

HAPROXY = find("haproxy")


class HAProxy:
    """A running HAProxy; `configuration` follows a `global` section that has its admin socket."""

    def __init__(self, directory: Path, configuration: str) -> None:
        self._socket = directory / "admin"
        file = directory / "haproxy.cfg"
        file.write_text(f"global\n    stats socket {self._socket} level admin\n{configuration}")
        assert HAPROXY
        self._process = subprocess.Popen(
            [HAPROXY, "-db", "-f", file],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(self._socket.exists)

    def tell(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self._socket))
            admin.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: admin.recv(65536), b"")).decode().strip()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def __enter__(self) -> "HAProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
