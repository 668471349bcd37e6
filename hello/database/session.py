"""A route to a database, and the session in which a lane uses it."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import date
from functools import partial
from typing import Generic, Protocol, TypeVar

import gevent

from hello.database import schema
from hello.database.models import Birthday
from hello.errors import (
    ConnectionBroken,
    DatabaseUnavailable,
    OutcomeUnknown,
    Rejected,
    SchemaOutdated,
)
from hello.telemetry import metrics

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

    def forget(self, usernames: Iterable[str], deadline: float) -> dict[str, bool]:
        """Commit that none of them is stored; return those that were, each with True."""

    def applied(self, deadline: float) -> list[str]:
        """The names of the schema scripts that were applied."""

    def prepare(self, deadline: float) -> None:
        """Get ready for `find` and `save`; called once, when the schema is known to be there."""

    def close(self) -> None: ...


#: Seconds between two questions whether a statement that may still arrive is over.
POLL_INTERVAL = 0.02

#: Seconds for which a connection is trusted to have the schema that it was seen to have.
SCHEMA_TERM = 5.0

AnyConnection = TypeVar("AnyConnection", bound=Connection)
OpenedConnection = TypeVar("OpenedConnection", bound=Connection, covariant=True)


class Route(Protocol[OpenedConnection]):
    """Opens connections to one database."""

    def connect(self, deadline: float) -> OpenedConnection:
        """Raises DatabaseUnavailable."""


class Current(Generic[AnyConnection]):
    """A route whose connections have the current schema, and are prepared."""

    def __init__(self, route: Route[AnyConnection]) -> None:
        self._route = route

    def connect(self, deadline: float) -> AnyConnection:
        connection = self._route.connect(deadline)
        try:
            check_schema(connection, deadline)
            connection.prepare(deadline)
        except BaseException:
            connection.close()
            raise
        return connection


def check_schema(connection: Connection, deadline: float) -> None:
    """Raises SchemaOutdated if the database lacks a script of this release."""
    missing = schema.pending(connection.applied(deadline))
    if missing:
        raise SchemaOutdated(f"the schema lacks {', '.join(missing)}: run python -m hello migrate")


def find(
    connection: Connection, names: Mapping[str, object], deadline: float
) -> dict[str, Birthday]:
    """The statement of a read lane."""
    return connection.find(names, deadline)


def save(connection: Connection, dates: Mapping[str, date], deadline: float) -> dict[str, int]:
    """The statement of a write lane."""
    return connection.save(dates, deadline)


def forget(connection: Connection, names: Mapping[str, object], deadline: float) -> dict[str, bool]:
    """The statement of an erasure."""
    return connection.forget(names, deadline)


class _Observers(dict[str, Callable[[float], None]]):
    """What observes the seconds of each statement on one database."""

    def __init__(self, database: str) -> None:
        self._database = database

    def __missing__(self, statement: str) -> Callable[[float], None]:
        self[statement] = observe = metrics.STATEMENT_SECONDS.into((self._database, statement))
        return observe


class Session(Generic[AnyConnection]):
    """One connection, opened when first needed and replaced when it fails.

    `route` opens connections that have the current schema; now and then it is looked at again,
    since somebody may revert it. A connection under which anything went wrong but the data is
    never used again.
    `name` tells the databases of a service apart in the log and, without a number after it,
    in figures.
    """

    def __init__(self, route: Route[AnyConnection], name: str = "database") -> None:
        self._route = route
        self._name = name
        self._kind = name.partition(" ")[0]
        self._observers = _Observers(self._kind)
        self._connection: AnyConnection | None = None
        #: When its schema is to be looked at again.
        self._check_at = 0.0
        self._failing = False

    def lane(
        self, statement: Callable[[AnyConnection, dict[str, Value], float], Mapping[str, Result]]
    ) -> Callable[[dict[str, Value], float], Mapping[str, Result | Exception]]:
        """A lane that runs `statement` in this session."""
        return partial(self.run, statement)

    def run(
        self,
        statement: Callable[[AnyConnection, dict[str, Value], float], Mapping[str, Result]],
        batch: dict[str, Value],
        deadline: float,
    ) -> Mapping[str, Result | Exception]:
        """Run a statement for a batch; a refused value fails its own key alone."""
        try:
            return self.call(
                lambda connection: statement(connection, batch, deadline),
                deadline,
                statement.__name__,
            )
        except Rejected:
            if len(batch) == 1:
                raise
        metrics.SPLITS.add("write" if statement is save else "read")
        # One value of the batch is at fault. Its neighbours must not suffer from it.
        results: dict[str, Result | Exception] = {}
        for key, value in batch.items():
            try:
                results.update(self.run(statement, {key: value}, deadline))
            except Rejected as ex:
                results[key] = ex
        return results

    def call(
        self,
        operation: Callable[[AnyConnection], Result],
        deadline: float,
        statement: str = metrics.OTHER,
    ) -> Result:
        """Do something that can be repeated with the connection, twice if it breaks.

        `statement` names it in figures.
        """
        try:
            try:
                result = self._call_once(operation, deadline, statement)
            except ConnectionBroken:
                # The database may have restarted while nothing was asked, or failed over.
                # All of them can be repeated: an upsert that was committed after all
                # finds its date stored. None that may still arrive is left: see _settle.
                metrics.RETRIES.add(self._kind)
                result = self._call_once(operation, deadline, statement)
        except DatabaseUnavailable as ex:
            if not self._failing:
                log.warning("the %s does not answer: %s", self._name, ex)
            self._failing = True
            raise
        if self._failing:
            log.warning("the %s answers again", self._name)
        self._failing = False
        return result

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def give_back(self, keep: Callable[[AnyConnection], None]) -> None:
        """Let somebody else have the connection."""
        if self._connection is not None:
            keep(self._connection)
            self._connection = None

    def _call_once(
        self, operation: Callable[[AnyConnection], Result], deadline: float, statement: str
    ) -> Result:
        connection = self._connection
        start = time.monotonic()
        if connection is None:
            try:
                connection = self._route.connect(deadline)
            finally:
                opened = time.monotonic()
                self._observers["connect"](opened - start)
            start = opened
            self._check_at = start + SCHEMA_TERM
        self._connection = None
        try:
            if start > self._check_at:
                check_schema(connection, deadline)
                self._check_at = start + SCHEMA_TERM
            result = operation(connection)
        except Rejected:
            self._connection = connection
            raise
        except OutcomeUnknown as ex:
            connection.close()
            self._settle(ex)
            raise
        except BaseException:
            connection.close()
            raise
        finally:
            self._observers[statement](time.monotonic() - start)
        self._connection = connection
        return result

    def _settle(self, unknown: OutcomeUnknown) -> None:
        """Wait until that statement cannot take effect any more.

        If it arrived later than what is done after this, it would undo that.
        """
        while (left := unknown.until - time.monotonic()) > 0:
            with suppress(DatabaseUnavailable):  # nobody can be asked yet
                if self._call_once(
                    lambda connection: unknown.is_over(connection, unknown.until),
                    unknown.until,
                    metrics.OTHER,
                ):
                    return
            gevent.sleep(min(POLL_INTERVAL, left))
