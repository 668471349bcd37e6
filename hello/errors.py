"""What can go wrong below HTTP. `hello.problems` says how each becomes an answer.

    ServiceError
    ├── Unavailable              try again later
    │   ├── Overloaded           too many requests wait already
    │   ├── DeadlineExceeded     the request's time is up
    │   └── DatabaseUnavailable  no connection, or the statement did not finish
    │       ├── ConnectionBroken it broke under a statement: worth one more try
    │       └── SchemaOutdated   the database waits for `python -m hello migrate`
    └── Rejected                 the database refuses this very value

Messages are shown to clients and written to logs, so they never hold a URI, a
password, a username or a date.
"""


class ServiceError(Exception):
    pass


class Unavailable(ServiceError):
    pass


class Overloaded(Unavailable):
    pass


class DeadlineExceeded(Unavailable):
    pass


class DatabaseUnavailable(Unavailable):
    pass


class ConnectionBroken(DatabaseUnavailable):
    pass


class SchemaOutdated(DatabaseUnavailable):
    pass


class Rejected(ServiceError):
    pass
