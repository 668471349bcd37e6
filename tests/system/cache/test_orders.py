"""No order of the steps of readers, writers and losses leaves an outdated value."""

from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from typing import Any, NamedTuple

import pytest
import redis

from hello.cache.connection import CacheConnection, Lease
from hello.database.models import NO_SUCH_USER, Generation, Record
from tests.support.cache import NEW, NEWER, OLD, Connect, Connection, G, fill, insist, key
from tests.support.valkey import Valkey


class Reader(NamedTuple):
    """How far a read has come: its lease, and what the database told it."""

    step: str = "claim"
    lease: Lease = Lease("", Generation(G, ""))
    found: Record = NO_SUCH_USER


class Writer(NamedTuple):
    """How far a PUT has come, and how many dates there were when it committed."""

    born: date
    step: str = "commit"
    number: int = 0


class State(NamedTuple):
    #: What the key holds.
    text: str | None
    readers: tuple[Reader, ...]
    writers: tuple[Writer, ...]
    #: All dates that were stored, in their order.
    dates: tuple[date, ...]
    #: How many dates there have been when the last PUT was answered.
    acknowledged: int
    #: How many of them the row has lost: versions begin after them.
    lost: int = 0
    #: How often an operator may still delete the row.
    deletions: int = 0

    @property
    def kind(self) -> tuple:
        """The state without what makes two leases differ that are alike."""
        text: object = self.text
        if self.text and self.text.startswith("r|"):
            text = tuple(reader.lease.token == self.text for reader in self.readers)
        readers = tuple((r.step, bool(r.lease.token), r.found) for r in self.readers)
        return text, readers, *self[2:]


class World:
    """Every state that readers, writers and losses of the key can lead to."""

    def __init__(self, connection: Connection, store: redis.Redis) -> None:
        self._connection = connection
        self._store = store
        self._key = key(store)
        self._generation = connection.present()
        self.states = 0
        self.hits = 0

    def explore(self, start: State) -> None:
        seen = {start.kind}
        todo: list[tuple[State, tuple[str, ...]]] = [(start, ("start",))]
        while todo:
            state, path = todo.pop()
            self._check(state, path)
            for name, step in self._steps(state):
                after = step()
                if after.kind not in seen:
                    seen.add(after.kind)
                    todo.append((after, (*path, name)))
        self.states = len(seen)

    def _check(self, state: State, path: tuple[str, ...]) -> None:
        if state.text and state.text.startswith("v|"):
            # An older version of a date that is current again shows what is true.
            born = date.fromisoformat(state.text.rpartition("|")[2])
            assert born in state.dates[max(0, state.acknowledged - 1) :], "\n".join(path)
            self.hits += 1

    def _steps(self, state: State) -> Iterator[tuple[str, Callable[[], State]]]:
        if state.text is not None:
            yield "lose", lambda: state._replace(text=None)
        if state.deletions:
            yield (
                "delete",
                lambda: state._replace(lost=len(state.dates), deletions=state.deletions - 1),
            )
        for n, reader in enumerate(state.readers):
            if reader.step != "done":
                yield f"reader {n}: {reader.step}", partial(self._read, state, n)
        for n, writer in enumerate(state.writers):
            if writer.step != "done":
                yield f"writer {n}: {writer.step}", partial(self._write, state, n)
            if writer.step == "remove":
                yield f"writer {n}: crash", partial(_with_writer, state, n, step="done")

    def _read(self, state: State, n: int) -> State:
        reader = state.readers[n]
        text = state.text
        if reader.step == "claim":
            lease, text = self._do(
                state, lambda c: c.claim(["alice"], self._generation).get("alice")
            )
            if isinstance(lease, Lease):
                reader = Reader("read", lease)
            else:
                reader = Reader("done")
        elif reader.step == "read":
            version = len(state.dates) - state.lost
            found = Record(state.dates[-1], version) if version else NO_SUCH_USER
            reader = reader._replace(step="fill", found=found)
        else:
            _, text = self._do(state, lambda c: c.fill(reader.lease, {"alice": reader.found}))
            reader = Reader("done")
        readers = (*state.readers[:n], reader, *state.readers[n + 1 :])
        return state._replace(text=text, readers=readers)

    def _write(self, state: State, n: int) -> State:
        writer = state.writers[n]
        if writer.step == "commit":
            dates = state.dates
            if len(dates) == state.lost or dates[-1] != writer.born:
                dates = (*dates, writer.born)
            after = state._replace(dates=dates)
            return _with_writer(after, n, step="remove", number=len(dates))
        _, text = self._do(state, lambda c: c.remove(["alice"], self._generation))
        acknowledged = max(state.acknowledged, writer.number)
        after = state._replace(text=text, acknowledged=acknowledged)
        return _with_writer(after, n, step="done")

    def _do(self, state: State, operation: Callable[[CacheConnection], Any]) -> tuple[Any, Any]:
        if state.text is None:
            self._store.delete(self._key)
        else:
            self._store.set(self._key, state.text)
        result = operation(self._connection)
        return result, self._store.get(self._key)


def _with_writer(state: State, n: int, **changes: Any) -> State:
    writer = state.writers[n]._replace(**changes)
    return state._replace(writers=(*state.writers[:n], writer, *state.writers[n + 1 :]))


@pytest.mark.parametrize(
    ("readers", "dates"),
    [(2, [NEW]), (2, [NEW, NEWER]), (1, [NEW, NEW]), (1, [NEW, OLD, NEW]), (1, [NEW, OLD, OLD])],
    ids=["one writer", "two writers", "the same date", "there and back", "back, and again"],
)
def test_no_order_of_steps_leaves_an_outdated_value(
    connect: Connect, store: redis.Redis, readers: int, dates: list[date]
) -> None:
    # Each reader claims, reads and fills. Each writer commits, and removes before it is
    # acknowledged, or crashes before it. At any moment the key may be evicted, expire, or be
    # lost with the server.
    world = World(connect(), store)
    writers = tuple(map(Writer, dates))
    empty = State(None, (Reader(),) * readers, writers, (OLD,), acknowledged=1)
    world.explore(empty)
    fill(connect(), alice=Record(OLD, 1))
    world.explore(empty._replace(text=str(store.get(key(store)))))
    assert world.states > 50
    assert world.hits > 10


@pytest.mark.parametrize(
    ("readers", "dates"),
    [(2, [NEW]), (1, [NEW, NEWER]), (1, [OLD, NEW]), (1, [NEW, OLD, NEWER])],
    ids=["one writer", "two writers", "the same date", "there and back"],
)
def test_no_order_of_steps_leaves_an_outdated_value_though_versions_begin_again(
    connect: Connect, store: redis.Redis, readers: int, dates: list[date]
) -> None:
    # As above, and an operator deletes the row at any moment.
    world = World(connect(), store)
    fill(connect(), alice=Record(OLD, 2))
    writers = tuple(map(Writer, dates))
    start = State(str(store.get(key(store))), (Reader(),) * readers, writers, (NEWER, OLD), 2)
    world.explore(start._replace(deletions=2))
    assert world.states > 50
    assert world.hits > 10


def lose_by_eviction(valkey: Valkey) -> None:
    with valkey.client as client:
        client.delete(key(client))


def lose_by_flush(valkey: Valkey) -> None:
    with valkey.client as client:
        client.flushall()


@pytest.fixture(params=[lose_by_eviction, lose_by_flush], ids=["eviction", "FLUSHALL"])
def lose(request: pytest.FixtureRequest, own_valkey: Valkey) -> Callable[[], None]:
    return lambda: request.param(own_valkey)


def test_a_slow_reader_stores_nothing_if_the_key_was_lost_after_a_write(
    own_valkey: Valkey, connect: Connect, lose: Callable[[], None]
) -> None:
    slow, writer, another = (connect(own_valkey.uri) for _ in range(3))
    lease = slow.claim(["alice"])["alice"]
    writer.remove(["alice"])
    lose()
    insist(lambda: slow.fill(lease, {"alice": Record(OLD, 1)}))
    assert isinstance(another.claim(["alice"])["alice"], Lease)


def test_a_slow_reader_stores_nothing_if_the_key_was_lost_before_a_write(
    own_valkey: Valkey, connect: Connect, lose: Callable[[], None]
) -> None:
    slow, writer, another = (connect(own_valkey.uri) for _ in range(3))
    lease = slow.claim(["alice"])["alice"]
    lose()
    writer.remove(["alice"])
    insist(lambda: slow.fill(lease, {"alice": Record(OLD, 1)}))
    assert isinstance(another.claim(["alice"])["alice"], Lease)


def test_a_slow_reader_does_not_replace_what_was_stored_after_a_loss(
    own_valkey: Valkey, connect: Connect, lose: Callable[[], None]
) -> None:
    slow, writer, another = (connect(own_valkey.uri) for _ in range(3))
    lease = slow.claim(["alice"])["alice"]
    lose()
    writer.remove(["alice"])
    fill(another, alice=Record(NEW, 2))
    insist(lambda: slow.fill(lease, {"alice": Record(OLD, 1)}))
    assert another.claim(["alice"]) == {"alice": Record(NEW, 2)}


def test_a_slow_reader_does_not_use_the_lease_of_another(
    own_valkey: Valkey, connect: Connect, lose: Callable[[], None]
) -> None:
    slow, another = connect(own_valkey.uri), connect(own_valkey.uri)
    old = slow.claim(["alice"])["alice"]
    lose()
    new = another.claim(["alice"])["alice"]
    insist(lambda: slow.fill(old, {"alice": Record(OLD, 1)}))
    assert another.claim(["alice"]) == {}
    another.fill(new, {"alice": Record(NEW, 2)})
    assert another.claim(["alice"]) == {"alice": Record(NEW, 2)}
