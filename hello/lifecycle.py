"""What this process is doing. The worker sets it, the health resources show it."""


class Process:
    """`draining` is true once the process was asked to stop."""

    def __init__(self) -> None:
        self.draining = False


process = Process()
