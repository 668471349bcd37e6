"""What this process is doing. The worker sets it, the health resources show it."""

from collections.abc import Callable


class Process:
    """`draining` is true once the process was asked to stop.

    `at_end` are called when the last request was answered; each must end soon.
    """

    def __init__(self) -> None:
        self.draining = False
        self.at_end: list[Callable[[], None]] = []


process = Process()
