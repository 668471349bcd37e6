"""HAProxy, with any configuration, or one that a document has."""

import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support import documents
from tests.support.processes import end, eventually
from tests.support.programs import find

HAPROXY = find("haproxy")


def documented(word: str, changes: Mapping[str, str]) -> str:
    """The configuration in docs/scaling.md that has a word, with some texts in it replaced."""
    return documents.documented("scaling.md", "haproxy", changes, word)


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
        end(self._process, within=10)

    def __enter__(self) -> "HAProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
