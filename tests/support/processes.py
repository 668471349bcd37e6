"""Starting, watching and ending real processes."""

import os
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

#: Not the one that a test may have seeded.
_random = random.SystemRandom()


def free_port() -> int:
    """A port that nobody has, and that no client's end of a connection gets by chance."""
    while True:
        port = _random.randrange(10_000, 32_000)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def eventually(condition: Callable[[], T | None], within: float = 10.0, message: str = "") -> T:
    """The first true value of `condition`, asked until `within` seconds have passed."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, message or f"not within {within} s: {condition}"
        time.sleep(0.02)


def end(process: "subprocess.Popen[Any]", within: float = 30.0) -> None:
    """Terminate a process; one that does not end is killed, and is a TimeoutExpired."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(within)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process, and let it go on. One that has ended and was not reaped counts as stopped."""
    os.kill(pid, signal.SIGSTOP)
    try:
        status = Path(f"/proc/{pid}/status")
        eventually(lambda: re.search(r"^State:\t[TZ]", status.read_text(), re.MULTILINE))
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
