"""What can go wrong below HTTP. `hello.problems` says how each becomes an answer.

    ServiceError
    ├── Unavailable              try again later
    │   ├── Overloaded           too many requests wait already
    │   ├── DeadlineExceeded     the request's time is up
    │   └── DatabaseUnavailable  no connection, or the statement did not finish
    │       ├── ConnectionBroken the connection broke: worth one more try on another
    │       │   └── OutcomeUnknown   under a write, which may still arrive
    │       ├── Misconfigured    a mounted setting is wrong: no database was asked
    │       ├── Unfit            the engine, or a pooler, lacks what the service needs
    │       └── SchemaOutdated   the database waits for `python -m hello migrate`
    └── Rejected                 the database refuses this very value

A message is for the log; it holds no URI, password, username or date. Clients see `detail`.
"""

from collections.abc import Callable
from typing import Any, ClassVar


class ServiceError(Exception):
    pass


class Unavailable(ServiceError):
    #: The text for clients, where they may not see the message.
    _public: ClassVar[str] = ""

    @property
    def detail(self) -> str:
        return self._public or str(self)


class Overloaded(Unavailable):
    pass


class DeadlineExceeded(Unavailable):
    pass


class DatabaseUnavailable(Unavailable):
    # The messages of drivers name hosts and users.
    _public = "the database does not answer"


class ConnectionBroken(DatabaseUnavailable):
    pass


class OutcomeUnknown(ConnectionBroken):
    """A statement that writes was sent, and its connection broke without a word from the server.

    The statement can take effect until `until`, in terms of time.monotonic(). `is_over` takes a new
    connection and a deadline: it ends the statement's process on the server, if it can, and returns
    whether that process is gone. It raises what calls of a connection raise.
    """

    def __init__(self, reason: str, until: float, is_over: Callable[[Any, float], bool]) -> None:
        super().__init__(reason)
        self.until = until
        self.is_over = is_over


class Misconfigured(DatabaseUnavailable):
    pass


class Unfit(DatabaseUnavailable):
    pass


class SchemaOutdated(DatabaseUnavailable):
    # The message names scripts and nothing else, so clients may see it.
    _public = ""


class Rejected(ServiceError):
    pass
