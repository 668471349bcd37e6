"""The session, in which a lane uses one connection to a database, and what opens it."""

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

import gevent

from hello.breaker import Outage
from hello.database import schema
from hello.database.models import Details, Record
from hello.errors import (
    ConnectionBroken,
    DatabaseUnavailable,
    OutcomeUnknown,
    Rejected,
    SchemaOutdated,
)
from hello.telemetry import metrics
from hello.telemetry.metric_types import CounterSeries
from hello.telemetry.names import OTHER

Value = TypeVar("Value")
Result = TypeVar("Result")


class DatabaseConnection(Protocol):
    """An open connection. Every call ends by `deadline`, in terms of time.monotonic().

    A call raises ConnectionBroken if another connection may do better, DatabaseUnavailable if not,
    and Rejected if the database refuses a value of the batch.
    """

    def find(self, names: Collection[str], deadline: float) -> dict[str, Record]:
        """The record of each name; NO_SUCH_USER for a name that is not stored."""

    def save(self, details: Mapping[str, Details], deadline: float) -> dict[str, int]:
        """Commit all details; return the new version for each name that did not have them yet."""

    def forget(self, names: Collection[str], deadline: float) -> dict[str, bool]:
        """Delete and commit all of `names`; return those that were stored, each with True."""

    def applied(self, deadline: float) -> list[str]:
        """The names of the schema scripts that were applied."""

    def prepare(self, deadline: float) -> None:
        """Get ready for `find` and `save`; called once, when the schema is known to be there."""

    def close(self) -> None: ...


#: Seconds between two questions whether a statement that may still arrive is over.
SETTLE_INTERVAL = 0.02

#: Seconds after which a connection is checked again for the current schema.
SCHEMA_TERM = 5.0

AnyConnection = TypeVar("AnyConnection", bound=DatabaseConnection)
OpenedConnection = TypeVar("OpenedConnection", bound=DatabaseConnection, covariant=True)


class Connector(Protocol[OpenedConnection]):
    """Opens connections to one database."""

    def connect(self, deadline: float) -> OpenedConnection:
        """A new connection. Raises DatabaseUnavailable."""


class CurrentSchema(Generic[AnyConnection]):
    """A connector whose connections have the current schema, and are prepared."""

    def __init__(self, connector: Connector[AnyConnection]) -> None:
        self._connector = connector

    def connect(self, deadline: float) -> AnyConnection:
        connection = self._connector.connect(deadline)
        try:
            check_schema(connection, deadline)
            connection.prepare(deadline)
        except BaseException:
            connection.close()
            raise
        return connection


def check_schema(connection: DatabaseConnection, deadline: float) -> None:
    """Raise SchemaOutdated if the database lacks a script of this release."""
    missing = schema.pending(connection.applied(deadline))
    if missing:
        raise SchemaOutdated(f"the schema lacks {', '.join(missing)}: run python -m hello migrate")


class Session(Generic[AnyConnection]):
    """One connection, opened when first needed and replaced when it fails.

    `connector` opens connections that have the current schema; the schema is checked again every
    SCHEMA_TERM seconds, since somebody may revert it. After any error but Rejected, a connection is
    never used again.
    `name` is the database's in the log and, without a number after it, in metrics.

    `find`, `save` and `forget` are lanes: see `hello.batching.Lane`. A refused value fails its own
    key alone.
    """

    def __init__(self, connector: Connector[AnyConnection], name: str = "database") -> None:
        self._connector = connector
        #: The database's label in metrics.
        self._database = name.partition(" ")[0]
        self._outage = Outage(name)
        self._connection: AnyConnection | None = None
        #: When the schema is to be checked again, in terms of time.monotonic().
        self._check_at = 0.0

    def find(self, names: Collection[str], deadline: float) -> Mapping[str, Record | Exception]:
        """A lane that reads."""
        try:
            return self.call(lambda c: c.find(names, deadline), deadline, "find")
        except Rejected as ex:
            return self._split(ex, self.find, dict.fromkeys(names), deadline, metrics.READ_SPLITS)

    def save(self, details: dict[str, Details], deadline: float) -> Mapping[str, int | Exception]:
        """A lane that writes."""
        try:
            return self.call(lambda c: c.save(details, deadline), deadline, "save")
        except Rejected as ex:
            return self._split(ex, self.save, details, deadline, metrics.WRITE_SPLITS)

    def forget(self, names: Collection[str], deadline: float) -> Mapping[str, bool | Exception]:
        """A lane that erases."""
        return self.call(lambda c: c.forget(names, deadline), deadline, "forget")

    def call(
        self,
        operation: Callable[[AnyConnection], Result],
        deadline: float,
        statement: str = OTHER,
    ) -> Result:
        """Run an operation, which can be repeated: once more if the connection breaks.

        `statement` is its label in metrics. Raises DatabaseUnavailable or Rejected.
        """
        try:
            try:
                result = self._call_once(operation, deadline, statement)
            except ConnectionBroken:
                # The database may have restarted while the connection was idle, or failed over.
                # Every operation can be repeated: an upsert that was committed all the same
                # finds its date stored. A statement that could still arrive is over: see _settle.
                metrics.RETRIES.labels(self._database).inc()
                result = self._call_once(operation, deadline, statement)
        except DatabaseUnavailable as ex:
            self._outage.begin(ex)
            raise
        self._outage.end()
        return result

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def give_back(self, keep: Callable[[AnyConnection], None]) -> None:
        """Hand the connection over to `keep`."""
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
                connection = self._connector.connect(deadline)
            finally:
                opened = time.monotonic()
                self._observe("connect", opened - start)
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
            self._observe(statement, time.monotonic() - start)
        self._connection = connection
        return result

    def _observe(self, statement: str, seconds: float) -> None:
        metrics.STATEMENT_SECONDS.labels(self._database, statement).observe(seconds)

    def _split(
        self,
        rejected: Rejected,
        lane: Callable[[dict[str, Value], float], Mapping[str, Result | Exception]],
        batch: dict[str, Value],
        deadline: float,
        splits: CounterSeries,
    ) -> Mapping[str, Result | Exception]:
        """Run a rejected batch key by key, so that a refused value fails its own key alone.

        Raises `rejected` if the batch has one key.
        """
        if len(batch) == 1:
            raise rejected
        splits.inc()
        results: dict[str, Result | Exception] = {}
        for key, value in batch.items():
            try:
                results.update(lane({key: value}, deadline))
            except Rejected as ex:
                results[key] = ex
        return results

    def _settle(self, unknown: OutcomeUnknown) -> None:
        """Wait until a statement cannot take effect any more.

        If it arrived later than the next write, it would undo that write.
        """
        while (left := unknown.until - time.monotonic()) > 0:
            with suppress(DatabaseUnavailable):  # the server cannot be asked yet
                if self._call_once(
                    lambda connection: unknown.is_over(connection, unknown.until),
                    unknown.until,
                    OTHER,
                ):
                    return
            gevent.sleep(min(SETTLE_INTERVAL, left))
