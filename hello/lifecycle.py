"""The state of this process: the worker sets it, the health resources show it."""

import mmap
from collections.abc import Callable


class Process:
    """`draining` is true once the process was asked to stop.

    The functions in `at_end` are called when the last request was answered; each must return soon.
    `has_read` is true once data was read with a current schema, by this process or by another
    worker of the same master: a worker that is replaced while the databases are away is as ready as
    the others.
    """

    def __init__(self) -> None:
        self.draining = False
        self.at_end: list[Callable[[], None]] = []
        self._shared = mmap.mmap(-1, 1)

    @property
    def has_read(self) -> bool:
        return self._shared[0] == 1

    @has_read.setter
    def has_read(self, value: bool) -> None:
        self._shared[0] = value


process = Process()
