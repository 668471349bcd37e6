"""Starting, watching and ending real processes."""

import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def eventually(condition: Callable[[], T], within: float = 10.0, message: str = "") -> T:
    """The first true value of `condition`, asked until `within` seconds have passed."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, message or f"not within {within} s: {condition}"
        time.sleep(0.02)
