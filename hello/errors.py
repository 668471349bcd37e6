"""What can go wrong below HTTP. `hello.problems` says how each becomes an answer.

    ServiceError
    ├── Unavailable              try again later
    │   ├── Overloaded           too many requests wait already
    │   ├── DeadlineExceeded     the request's time is up
    │   └── DatabaseUnavailable  no connection, or the statement did not finish
    │       ├── ConnectionBroken it broke under a statement: worth one more try
    │       │   └── OutcomeUnknown   which writes, and may still arrive
    │       ├── Misconfigured    a mounted setting is wrong: nobody was asked
    │       └── SchemaOutdated   the database waits for `python -m hello migrate`
    └── Rejected                 the database refuses this very value

A message is for the log; it holds no URI, password, username or date. Clients see `detail`.
"""

from collections.abc import Callable
from typing import Any, ClassVar


class ServiceError(Exception):
    pass


class Unavailable(ServiceError):
    #: What clients are told instead of the message, if they may not know it.
    _public: ClassVar[str] = ""

    @property
    def detail(self) -> str:
        return self._public or str(self)


class Overloaded(Unavailable):
    pass


class DeadlineExceeded(Unavailable):
    pass


class DatabaseUnavailable(Unavailable):
    # Drivers' messages name hosts and users.
    _public = "the database does not answer"


class ConnectionBroken(DatabaseUnavailable):
    pass


class OutcomeUnknown(ConnectionBroken):
    """A statement that writes was sent, and its session broke without a word from the server.

    Until `until`, in terms of time.monotonic(), it can take effect, wherever it is now. `is_over`
    is told a new connection and a deadline: it ends the session if it can, and says whether it
    is gone. What may be raised by connections, it raises too.
    """

    def __init__(self, reason: str, until: float, is_over: Callable[[Any, float], bool]) -> None:
        super().__init__(reason)
        self.until = until
        self.is_over = is_over


class Misconfigured(DatabaseUnavailable):
    pass


class SchemaOutdated(DatabaseUnavailable):
    # The message names scripts, and nothing else.
    _public = ""


class Rejected(ServiceError):
    pass
