"""The permission to use the cache, in simulated time: what no order and no delay may do.

Workers read and write one user through a primary and a cache that are simulated. Every step
takes a random time, sometimes much longer than a permission lasts, each worker loses and
regains its way to the cache and to the primary and goes over to another cache server, and the
primary's clock is set or another server's. A seed says all of it.
"""

import heapq
import random
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import gevent
import pytest
from gevent.event import Event

from hello.cache.permission import ASK_TIMEOUT, CLOCKS, SUSPENSION, TERM, Permission
from hello.database.models import CacheStanding, Generation
from hello.errors import DatabaseUnavailable, SchemaOutdated

FOREVER = float("inf")


class Time:
    """Time that passes when everybody waits for it."""

    def __init__(self, end: float) -> None:
        self.now = 0.0
        self._end = end
        self._number = count()
        self._sleepers: list[tuple[float, int, Event]] = []

    def sleep(self, seconds: float) -> None:
        event = Event()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._number), event))
        event.wait()

    def run(self) -> None:
        while self._sleepers and self.now < self._end:
            self.now, _, event = heapq.heappop(self._sleepers)
            event.set()
            for _ in range(4):  # whoever was woken may wake others
                gevent.sleep(0)


class World:
    """The primary and the cache, and what was acknowledged."""

    def __init__(self, seed: int, end: float) -> None:
        self.random = random.Random(seed)
        self.time = Time(end)
        self.version = 1
        self.acknowledged = 1
        self.generation = Generation(0, "0")
        #: By the primary's clock.
        self.suspended_until = 0.0
        self.skew = 0.0
        #: What each generation holds on its server: a version, or a lease.
        self.cache: dict[Generation, int | str] = {}
        self.leases = count()
        self.hits = self.suspensions = self.naps = 0
        #: Suspensions that are being committed.
        self.suspending = 0
        self.past: list[str] = []

    def clock(self) -> float:
        """The primary's."""
        return self.time.now + self.skew

    def set_clocks(self) -> None:
        while True:
            self.time.sleep(self.random.expovariate(1 / 3))
            self.skew = self.random.uniform(0, CLOCKS)

    def jump(self) -> None:
        """Set the primary's clock forward by an hour while nothing is suspended, and back."""
        while True:
            self.time.sleep(self.random.expovariate(1 / 8))
            if self.skew:
                self.skew = 0.0
            elif not self.suspending and self.suspended_until < self.clock():
                self.skew = 3600.0

    def pause(self) -> None:
        """Some time: a network, a disk, a process that does not run."""
        usual = self.random.expovariate(1 / 0.002)
        stall = self.random.uniform(0, 3 * TERM) if self.random.random() < 0.02 else 0
        self.time.sleep(usual + stall)


class Worker:
    """Stands in for the lanes of a worker, and for its session with the primary."""

    permission: Permission

    def __init__(self, world: World, kind: type[Permission]) -> None:
        self._world = world
        self._reaches_cache = self._reaches_primary = True
        #: The history of the cache server to which it is connected.
        self._server = "0"
        #: Until when the machine is suspended, and how long it was, in all.
        self._wakes_at = self._slept = 0.0
        self.permission = kind(self, lambda: world.time.now, self._sleep, self.monotonic)
        for life in (self._write, self._read, self._read, self._fail, self._nap):
            gevent.spawn(life)

    def monotonic(self) -> float:
        """A clock that stands still while the machine is suspended."""
        return self._world.time.now - self._slept

    def _sleep(self, seconds: float) -> None:
        time = self._world.time
        end = self.monotonic() + seconds
        while (left := max(end - self.monotonic(), self._wakes_at - time.now)) > 0:
            time.sleep(max(left, 1e-6))  # less may be no time at all

    def _pause(self) -> None:
        """As World.pause, on this machine."""
        self._world.pause()
        self._sleep(0.0)

    def _nap(self) -> None:
        """Suspend the machine now and then."""
        world = self._world
        while True:
            world.time.sleep(world.random.expovariate(1 / 6))
            nap = world.random.uniform(0, 2 * SUSPENSION)
            self._wakes_at = world.time.now + nap
            self._slept += nap
            world.naps += 1
            world.time.sleep(nap)

    # The session

    def call(self, operation: Callable[["Worker"], Any], deadline: float, statement: str) -> Any:
        return operation(self)

    def _ask(self, answer: Callable[[], Any]) -> Any:
        self._world.pause()
        if not self._reaches_primary:
            raise DatabaseUnavailable("away")
        found = answer()
        self._pause()
        return found

    def _standing(self, generation: Generation, until: float) -> CacheStanding:
        # The row was seen before the clock is looked at.
        self._world.pause()
        return CacheStanding(generation, max(0.0, until - self._world.clock()))

    def cache_standing(self, deadline: float) -> CacheStanding:
        world = self._world
        return self._ask(lambda: self._standing(world.generation, world.suspended_until))

    def suspend_cache(self, seconds: float, history: str | None, deadline: float) -> CacheStanding:
        def suspend() -> CacheStanding:
            world = self._world
            world.suspensions += 1
            world.suspending += 1
            until = world.clock() + seconds
            world.pause()  # until it is committed
            number, named = world.generation
            world.generation = Generation(number + 1, history or named)
            world.suspended_until = until
            world.suspending -= 1
            return self._standing(world.generation, world.suspended_until)

        return self._ask(suspend)

    # The lanes

    def _write(self) -> None:
        world = self._world
        while True:
            self._sleep(world.random.expovariate(1 / 0.1))
            try:
                version = self._ask(self._commit)
                generation = self.permission.to_acknowledge(FOREVER)
                if generation is not None and not self._remove(generation):
                    self.permission.suspend(FOREVER, self._another(generation))
            except DatabaseUnavailable:
                continue
            world.acknowledged = max(world.acknowledged, version)

    def _commit(self) -> int:
        self._world.version += 1
        return self._world.version

    def _another(self, generation: Generation) -> str | None:
        """The history of its server, if that is there and another one than was meant."""
        return self._server if self._reaches_cache and self._server != generation.history else None

    def _remove(self, generation: Generation) -> bool:
        self._world.pause()
        if not self._reaches_cache or self._another(generation):
            return False
        self._world.cache.pop(generation, None)
        self._pause()
        return True

    def _read(self) -> None:
        world = self._world
        while True:
            self._sleep(world.random.expovariate(1 / 0.02))
            promised = world.acknowledged
            use = self.permission.to_read(FOREVER)
            lease = f"lease {next(world.leases)}"
            held = use and self._claim(use.generation, lease)
            if use and (history := self._another(use.generation)):
                with suppress(DatabaseUnavailable):
                    self.permission.suspend(FOREVER, history)
            if use and isinstance(held, int):
                world.hits += 1
                if held < promised and use.confirmed:
                    world.past.append(f"{held} after {promised} at {world.time.now:.3f}")
                continue
            try:
                version = self._ask(lambda: world.version)
            except DatabaseUnavailable:
                continue
            self._pause()
            if use and use.confirmed and self._reaches_cache and not self._another(use.generation):
                self._fill(use.generation, lease, version)

    def _claim(self, generation: Generation, lease: str) -> int | str | None:
        world = self._world
        world.pause()
        if not self._reaches_cache or self._another(generation):
            return None
        held = world.cache.setdefault(generation, lease)
        self._pause()
        return held

    def _fill(self, generation: Generation, lease: str, version: int) -> None:
        if self._world.cache.get(generation) == lease:
            self._world.cache[generation] = version

    def _fail(self) -> None:
        world = self._world
        while True:
            world.time.sleep(world.random.expovariate(1 / 8))
            if (kind := world.random.random()) < 0.1:
                # It has failed over, for some; a server that lives on holds what it held.
                self._server = world.random.choice("012")
                continue
            if kind < 0.7:
                self._reaches_cache = False
            else:
                self._reaches_primary = False
            world.time.sleep(world.random.uniform(0, 2 * SUSPENSION))
            self._reaches_cache = self._reaches_primary = True


def simulate(
    seed: int,
    seconds: float,
    kind: type[Permission] = Permission,
    clocks: Callable[[World], None] = World.set_clocks,
) -> World:
    world = World(seed, seconds)
    gevent.spawn(clocks, world)
    for _ in range(3):
        Worker(world, kind)
    gevent.sleep(0)
    world.time.run()
    return world


@pytest.mark.parametrize("clocks", [World.set_clocks, World.jump])
@pytest.mark.parametrize("seed", range(5))
def test_a_read_never_sees_the_past(seed: int, clocks: Callable[[World], None]) -> None:
    world = simulate(seed, seconds=60, clocks=clocks)
    assert world.past == []
    assert world.naps > 5
    assert world.hits > 100
    assert world.suspensions > 2
    assert world.acknowledged > 200


class Impatient(Permission):
    """Acknowledges a write while others may still read what it outdates."""

    def _settle(self, deadline: float) -> None:
        pass


class Careless(Permission):
    """Takes a cache that it cannot reach for one that nobody can reach."""

    def suspend(self, deadline: float, history: str | None = None) -> None:
        pass


class Trusting(Permission):
    """Believes for ever what it was told once."""

    @property
    def _usable(self) -> bool:
        return self.generation is not None and not self.suspended


class Dozing(Permission):
    """Does not notice that its machine was suspended."""

    def __init__(self, session: Any, _: Any, sleep: Any, monotonic: Any) -> None:
        super().__init__(session, monotonic, sleep, monotonic)


@pytest.mark.parametrize("kind", [Impatient, Careless, Trusting, Dozing])
def test_the_simulation_finds_out_who_is_wrong(kind: type[Permission]) -> None:
    assert any(simulate(seed, seconds=60, kind=kind).past for seed in range(5))


def test_a_primary_whose_clock_was_an_hour_wrong_suspends_nobody_for_an_hour() -> None:
    now = 0.0

    class Wrong:
        def call(self, operation: Callable[[Any], Any], deadline: float, statement: str) -> Any:
            return CacheStanding(Generation(7, ""), 3600.0 - now)

    permission = Permission(Wrong(), lambda: now, monotonic=lambda: now)
    assert permission.to_read(FOREVER) is None
    # Others may have heard of it earlier, and read.
    assert permission.to_acknowledge(FOREVER) == Generation(7, "")
    now = SUSPENSION - 0.1
    assert permission.to_read(FOREVER) is None
    now = SUSPENSION + 0.1
    use = permission.to_read(FOREVER)
    assert use is not None
    assert use.confirmed


def test_a_writer_waits_for_a_suspension_that_was_over_before_it_was_committed() -> None:
    now = 0.0
    slept: list[float] = []

    class Slow:
        generation = Generation(1, "")

        def call(self, operation: Callable[[Any], Any], deadline: float, statement: str) -> Any:
            return CacheStanding(self.generation, 0.0)

    permission = Permission(Slow(), lambda: now, slept.append, lambda: now)
    assert permission.to_acknowledge(FOREVER) == Generation(1, "")
    assert slept == []
    now = 2 * TERM
    Slow.generation = Generation(2, "")
    assert permission.to_acknowledge(FOREVER) == Generation(2, "")
    assert slept == [TERM]


def test_a_reader_does_not_wait_as_long_as_a_writer() -> None:
    class Silent:
        def call(self, operation: Callable[[Any], Any], deadline: float, statement: str) -> Any:
            gevent.sleep(deadline - time.monotonic())
            raise DatabaseUnavailable("silent")

    permission = Permission(Silent())
    began = time.monotonic()
    writer = gevent.spawn(permission.to_acknowledge, began + 60)
    gevent.sleep(0)
    try:
        assert permission.to_read(began + 60) is None
        assert ASK_TIMEOUT <= time.monotonic() - began < 30
    finally:
        writer.kill()


def test_a_worker_that_knows_nothing_waits_once_for_a_primary_that_is_away() -> None:
    now = 0.0
    asked_by = []

    class Away:
        def call(self, operation: Callable[[Any], Any], deadline: float, statement: str) -> Any:
            asked_by.append(gevent.getcurrent())
            raise DatabaseUnavailable("away")

    permission = Permission(Away(), lambda: now, monotonic=lambda: now)
    for _ in range(3):
        assert permission.to_read(FOREVER) is None
        gevent.sleep(0)
        now += 2.0
    assert [greenlet is gevent.getcurrent() for greenlet in asked_by] == [True, False, False]


class Asked:
    """A session with a primary that was well once; then each question ends as the test says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.takes = 0.0
        self.fail: DatabaseUnavailable | None = None

    def call(self, operation: Callable[[Any], Any], deadline: float, statement: str) -> Any:
        self.now = min(self.now + self.takes, deadline)
        if self.fail:
            raise self.fail
        return CacheStanding(Generation(1, ""), 0.0)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def permission(asked: Asked) -> Permission:
    """One that has ended, in a worker that may try without it while the primary is away."""
    permission = Permission(asked, lambda: asked.now, monotonic=lambda: asked.now)
    assert permission.to_read(FOREVER)
    asked.now += 2 * TERM
    asked.fail = DatabaseUnavailable("the statement did not finish in time")
    return permission


def test_a_primary_that_had_little_time_is_not_taken_for_away(
    asked: Asked, permission: Permission
) -> None:
    asked.takes = FOREVER
    assert permission.to_read(asked.now + ASK_TIMEOUT / 2) is None
    asked.takes, asked.fail = 0.0, None
    use = permission.to_read(asked.now + ASK_TIMEOUT)
    assert use is not None
    assert use.confirmed


def test_a_primary_that_had_its_time_is_away_and_what_the_cache_holds_unconfirmed(
    asked: Asked, permission: Permission
) -> None:
    asked.takes = FOREVER
    use = permission.to_read(asked.now + 60)
    assert use is not None
    assert not use.confirmed


def test_a_primary_with_an_outdated_schema_is_there_and_nobody_reads_from_the_cache(
    asked: Asked, permission: Permission
) -> None:
    asked.fail = SchemaOutdated("the schema lacks 0002")
    for _ in range(3):
        assert permission.to_read(asked.now + 60) is None
        asked.now += 2.0


def test_a_write_is_not_acknowledged_while_others_may_still_read_what_it_outdates() -> None:
    now = 0.0

    class Suspended:
        def call(self, operation: Callable[[Any], Any], deadline: float, statement: str) -> Any:
            return CacheStanding(Generation(2, ""), SUSPENSION)

    slept: list[float] = []
    permission = Permission(Suspended(), lambda: now, slept.append, lambda: now)
    with pytest.raises(DatabaseUnavailable, match="others may still read from the cache"):
        permission.to_acknowledge(now + TERM / 2)
    assert slept == []
    assert permission.to_acknowledge(now + 2 * TERM) is None
    assert slept == [TERM]
