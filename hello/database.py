"""One route to a database, and the session in which a lane uses it."""

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Generic, Protocol, TypeVar

from hello import schema
from hello.errors import ConnectionBroken, DatabaseUnavailable, Rejected, SchemaOutdated
from hello.models import Birthday

log = logging.getLogger(__name__)

Value = TypeVar("Value")
Result = TypeVar("Result")


class Connection(Protocol):
    """An open connection. Every call ends by `deadline`, in terms of time.monotonic().

    Raises ConnectionBroken if another connection may do better, DatabaseUnavailable
    if not, and Rejected if the database refuses a value of the batch.
    """

    def find(self, usernames: Iterable[str], deadline: float) -> dict[str, Birthday]: ...

    def save(self, dates: Mapping[str, date], deadline: float) -> dict[str, int]:
        """Commit all of `dates`; return the new version of each that was not stored yet."""

    def applied(self, deadline: float) -> list[str]:
        """The names of the schema scripts that were applied."""

    def close(self) -> None: ...


class Route(Protocol):
    """Opens connections to one database."""

    def connect(self, deadline: float) -> Connection:
        """Raises DatabaseUnavailable."""


def find(connection: Connection, names: dict[str, None], deadline: float) -> dict[str, Birthday]:
    """The statement of a read lane."""
    return connection.find(names, deadline)


def save(connection: Connection, dates: dict[str, date], deadline: float) -> dict[str, int]:
    """The statement of a write lane."""
    return connection.save(dates, deadline)


class Session(Generic[Value, Result]):
    """A lane: one connection, opened when first needed and replaced when it fails.

    A connection under which anything went wrong but the data is never used again.
    """

    def __init__(
        self,
        route: Route,
        statement: Callable[[Connection, dict[str, Value], float], Mapping[str, Result]],
    ) -> None:
        self._route = route
        self._statement = statement
        self._connection: Connection | None = None
        self._failing = False

    def __call__(
        self, batch: dict[str, Value], deadline: float
    ) -> Mapping[str, Result | Exception]:
        try:
            try:
                results = self._run(batch, deadline)
            except ConnectionBroken:
                # The database may have restarted while the lane was idle, or failed over.
                # Both statements can be repeated: an upsert that was committed after all
                # finds the date stored.
                results = self._run(batch, deadline)
        except DatabaseUnavailable as ex:
            if not self._failing:
                log.warning("the database does not answer: %s", ex)
            self._failing = True
            raise
        if self._failing:
            log.warning("the database answers again")
        self._failing = False
        return results

    def _run(self, batch: dict[str, Value], deadline: float) -> Mapping[str, Result | Exception]:
        try:
            return self._run_once(batch, deadline)
        except Rejected:
            if len(batch) == 1:
                raise
        # One value of the batch is at fault. Its neighbours must not suffer from it.
        results: dict[str, Result | Exception] = {}
        for key, value in batch.items():
            try:
                results.update(self._run_once({key: value}, deadline))
            except Rejected as ex:
                results[key] = ex
        return results

    def _run_once(self, batch: dict[str, Value], deadline: float) -> Mapping[str, Result]:
        connection = self._connection or self._open(deadline)
        self._connection = None
        try:
            results = self._statement(connection, batch, deadline)
        except Rejected:
            self._connection = connection
            raise
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return results

    def _open(self, deadline: float) -> Connection:
        connection = self._route.connect(deadline)
        try:
            missing = schema.pending(connection.applied(deadline))
            if missing:
                raise SchemaOutdated(
                    f"the schema lacks {', '.join(missing)}: run python -m hello migrate"
                )
        except BaseException:
            connection.close()
            raise
        return connection
