"""What can go wrong below HTTP. `hello.problems` says how each becomes an answer.

    ServiceError
    ├── Unavailable              try again later
    │   ├── Overloaded           too many requests wait already
    │   ├── DeadlineExceeded     the request's time is up
    │   └── DatabaseUnavailable  no connection, or the statement did not finish
    │       ├── ConnectionBroken it broke under a statement: worth one more try
    │       ├── Misconfigured    a mounted setting is wrong: nobody was asked
    │       └── SchemaOutdated   the database waits for `python -m hello migrate`
    └── Rejected                 the database refuses this very value

A message is for the log; it holds no URI, password, username or date. Clients see `detail`.
"""


class ServiceError(Exception):
    pass


class Unavailable(ServiceError):
    @property
    def detail(self) -> str:
        return str(self)


class Overloaded(Unavailable):
    pass


class DeadlineExceeded(Unavailable):
    pass


class DatabaseUnavailable(Unavailable):
    @property
    def detail(self) -> str:
        # Drivers' messages name hosts and users.
        return "the database does not answer"


class ConnectionBroken(DatabaseUnavailable):
    pass


class Misconfigured(DatabaseUnavailable):
    pass


class SchemaOutdated(DatabaseUnavailable):
    @property
    def detail(self) -> str:
        return str(self)


class Rejected(ServiceError):
    pass
