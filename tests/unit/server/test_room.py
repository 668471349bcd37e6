"""Which connections give way, and when."""

from dataclasses import dataclass
from typing import Any

import gevent
import pytest

from hello.lifecycle import process
from hello.server.room import AT_ONCE, MAX_HELD_FOR_ALL, Room

#: So many that one connection at a time gives way, and one is left alone.
LIMIT = 8


@dataclass(eq=False)
class Client:
    """A connection that waits for its client, unless it is said to be busy."""

    waits_since: float
    answered: bool = False
    held: int = 0
    waits_for_client: bool = True
    gave_way: bool = False

    def give_way(self) -> None:
        self.gave_way = True


class Warnings(list[str]):
    def __call__(self, message: str) -> None:
        self.append(message)


@pytest.fixture
def warnings() -> Warnings:
    return Warnings()


@pytest.fixture
def room(warnings: Warnings) -> Room[Client]:
    return Room(LIMIT, warnings)


def enter(room: Room[Client], number: int, **members: Any) -> list[Client]:
    """Clients of which each began to wait after the one before."""
    clients = [Client(waits_since=float(i), **members) for i in range(number)]
    for client in clients:
        room.add(client)
    return clients


def gone(clients: list[Client]) -> list[int]:
    """Which of the clients gave way, once the hub had its turn."""
    gevent.sleep(0)
    return [i for i, client in enumerate(clients) if client.gave_way]


def test_up_to_the_limit_nobody_gives_way(room: Room[Client], warnings: Warnings) -> None:
    clients = enter(room, LIMIT)
    room.keep_to_limit()
    assert gone(clients) == []
    assert warnings == []


def test_beyond_the_limit_the_one_that_waited_longest_gives_way(
    room: Room[Client], warnings: Warnings
) -> None:
    clients = enter(room, LIMIT + 1)
    assert gone(clients) == [0]
    assert warnings == [f"all {LIMIT} connections are taken"]


def test_a_connection_that_is_being_served_never_gives_way(room: Room[Client]) -> None:
    clients = enter(room, LIMIT + 1, waits_for_client=False)
    assert gone(clients) == []
    clients[5].waits_for_client = clients[7].waits_for_client = True
    room.keep_to_limit()
    assert gone(clients) == [5]


def test_those_that_began_to_wait_last_are_left_alone(room: Room[Client]) -> None:
    clients = enter(room, LIMIT + 1, waits_for_client=False)
    clients[0].waits_for_client = True
    room.keep_to_limit()
    assert gone(clients) == []


@pytest.mark.parametrize(("answered", "expected"), [(3, 3), (6, 0)])
def test_the_larger_part_gives_way(room: Room[Client], answered: int, expected: int) -> None:
    clients = enter(room, LIMIT + 1)
    for client in clients[:answered]:
        client.answered = True
    assert gone(clients) == [expected]


@pytest.mark.parametrize(("limit", "more"), [(1, 1), (8, 1), (80, 10), (100_000, AT_ONCE)])
def test_size_is_some_more_than_the_limit(limit: int, more: int) -> None:
    assert Room.size(limit) == limit + more


def test_room_is_made_for_another_reason(room: Room[Client], warnings: Warnings) -> None:
    clients = enter(room, 3)
    room.make("no files")
    assert gone(clients) == [0]
    room.make("no files")  # said already
    gone(clients)
    assert warnings == ["no files"]


def test_the_one_that_holds_most_bytes_gives_way(room: Room[Client], warnings: Warnings) -> None:
    clients = enter(room, 4)
    half = MAX_HELD_FOR_ALL // 2
    for client, held in zip(clients, [1, half, half, 0], strict=True):
        client.held = held
        assert room.hold(held)
    assert gone(clients) == [1]
    assert len(warnings) == 1


def test_bytes_that_are_held_no_longer_do_not_count(room: Room[Client]) -> None:
    clients = enter(room, 4)
    assert room.hold(MAX_HELD_FOR_ALL)
    assert room.hold(-1)
    assert room.hold(1)
    assert gone(clients) == []


def test_whoever_adds_to_far_too_many_bytes_is_told_to_end(room: Room[Client]) -> None:
    assert room.hold(2 * MAX_HELD_FOR_ALL - 1)
    assert not room.hold(1)


@pytest.fixture
def draining(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "draining", True)


def test_a_drain_makes_no_room(draining: None, room: Room[Client], warnings: Warnings) -> None:
    clients = enter(room, LIMIT + 1)
    assert room.hold(3 * MAX_HELD_FOR_ALL)
    assert gone(clients) == []
    assert warnings == []


def test_connections_that_left_take_no_room(room: Room[Client]) -> None:
    clients = enter(room, LIMIT)
    room.discard(clients[0])
    clients += enter(room, 1)
    assert gone(clients) == []
    assert set(room) == set(clients[1:])
