from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, tzinfo

import pytest

from hello.app import create_app
from hello.backends import Backends
from hello.database import schema
from hello.database.session import Session
from hello.database.sqlite import SQLiteMemory
from hello.settings import Settings
from hello.users import Users
from tests.support import engine
from tests.support.client import Client
from tests.support.users import LIMITS, users_of


class Clock:
    """A clock that stands still, at a time when the world has three dates."""

    def __init__(self) -> None:
        self.now = datetime(2026, 5, 17, 10, 30, tzinfo=UTC)

    def __call__(self, zone: tzinfo) -> date:
        return self.now.astimezone(zone).date()


@pytest.fixture
def clock() -> Clock:
    return Clock()


class StoredUsers(Users):
    def date_of(self, username: str) -> date | None:
        """The date that is stored for a user, if there is one."""
        return self.find(username).date_of_birth


def check(users: Users) -> dict[str, Callable]:
    """What `/health` asks."""

    def ping(timeout: float) -> dict:
        users.ping(timeout)
        return {}

    return {"database": ping}


@pytest.fixture(scope="package")
def engine_uri() -> Iterator[str | None]:
    """The URI of an engine on which these tests are to run, with the service's tables."""
    if engine.URI is None:
        yield None
        return
    with engine.migrated(engine.URI, schema.NAMES[0]):
        yield engine.URI


@pytest.fixture
def users(memory: SQLiteMemory, engine_uri: str | None) -> Iterator[StoredUsers]:
    sessions = [Session(memory), Session(memory)]
    if engine_uri is not None:
        engine.query(engine_uri, "DELETE FROM users")
        backends = Backends(Settings.load({"DB_URI": engine_uri}))
        sessions = [backends.open_primary(), backends.open_primary()]
    reads, writes = sessions
    yield StoredUsers([reads.find], [writes.save], **LIMITS)
    if engine_uri is not None:
        reads.close()
        writes.close()


@pytest.fixture
def client(users: Users, clock: Clock) -> Client:
    return Client(create_app(users, clock=clock, checks=check(users)))


@pytest.fixture
def failing_client(clock: Clock) -> Callable[[Exception], Client]:
    """Makes clients of a service whose every statement raises the given exception."""

    def make(ex: Exception) -> Client:
        def lane(batch: object, deadline: float) -> dict:
            raise ex

        users = users_of([lane], [lane])
        return Client(create_app(users, clock=clock, checks=check(users)))

    return make
