"""A drain whose listener has clients left, and whose pool has room for one of them at a time."""

import errno
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import gevent
import pytest
from gevent.event import Event
from gevent.pool import Pool

from hello.lifecycle import process
from hello.server import drain as module
from hello.server.connection import Context
from hello.server.drain import Drain
from hello.server.listener import Listener


class Client:
    closed = False

    def close(self) -> None:
        self.closed = True


class Waiting:
    """A listener: clients that nobody has accepted yet, each served until `go_on`."""

    def __init__(self, pool: Pool, clients: int) -> None:
        self._pool = pool
        self.clients = [Client() for _ in range(clients)]
        self._left = list(self.clients)
        self.served: list[Client] = []
        self.go_on = Event()
        self.closed = False
        #: What says how often there is no file descriptor.
        self.exhausted: Callable[[], bool] = lambda: False

    def accept(self) -> tuple[Client, str] | None:
        if self.exhausted():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return (self._left.pop(0), "peer") if self._left else None

    def do_handle(self, client: Client, peer: str) -> None:
        self.served.append(client)
        self._pool.spawn(self.go_on.wait)

    def close(self) -> None:
        self.closed = True


class Draining:
    """A worker that is about to end."""

    def __init__(self, clients: int = 3) -> None:
        self.pool = Pool(1)
        self.listener = Waiting(self.pool, clients)
        self.ticks = 0
        self.warnings: list[str] = []
        #: What happens at each tick.
        self.meanwhile: Callable[[], object] = lambda: None

    def tick(self) -> None:
        self.ticks += 1
        self.meanwhile()

    def run(self, seconds: float = 10.0) -> None:
        log = SimpleNamespace(warning=lambda text, *values: self.warnings.append(text % values))
        context = cast(Context, SimpleNamespace(room=[], log=log))
        Drain(context, self.pool, self.tick, seconds).run([cast(Listener, self.listener)])
        assert self.listener.closed


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "draining", False)
    monkeypatch.setattr(module, "SERVES_ON", 0.0)
    monkeypatch.setattr(module, "TICK", 0.01)
    monkeypatch.setattr(module, "RETRY", 0.01)
    monkeypatch.setattr(module, "TRIES_TO_ACCEPT", 0.1)


@pytest.fixture
def draining() -> Draining:
    return Draining()


def test_the_rest_is_accepted_one_after_the_other_as_the_pool_has_room(draining: Draining) -> None:
    draining.meanwhile = lambda: draining.listener.go_on.set()
    draining.run()
    assert draining.listener.served == draining.listener.clients
    assert draining.ticks > 0
    assert draining.warnings == []


def test_who_finds_no_room_until_the_end_is_closed(draining: Draining) -> None:
    draining.run(seconds=0.1)
    first, *others = draining.listener.clients
    assert draining.listener.served == [first]
    assert all(client.closed for client in others)
    assert draining.warnings == ["1 requests were not answered in time"]


def test_it_waits_for_file_descriptors_which_end_with_other_connections(draining: Draining) -> None:
    draining.listener.go_on.set()
    draining.listener.exhausted = lambda: draining.ticks < 3
    draining.run()
    assert draining.listener.served == draining.listener.clients
    assert draining.warnings == []


def test_it_gives_up_where_there_are_no_file_descriptors(draining: Draining) -> None:
    draining.listener.exhausted = lambda: True
    with gevent.Timeout(5):
        draining.run()
    assert draining.listener.served == []
    assert draining.warnings == [f"connections are lost: {os.strerror(errno.EMFILE)}"]
