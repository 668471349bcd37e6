"""Users spread over cells, as docs/scaling.md has it: by the configuration that stands there.

`-rP` shows how long clients went without an answer while the cells doubled.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from urllib.parse import quote

import pytest

from scripts import cells as names
from scripts.cells import SLOTS, others, slot, spread
from tests.support.gaps import longest_gap
from tests.support.haproxy import HAPROXY, HAProxy, documented
from tests.support.postgres import Cluster
from tests.support.processes import free_port
from tests.support.promise import Operation, violations
from tests.support.service import Answer, Client, Service, Wire, head, migrate
from tests.support.valkey import Valkey
from tests.support.workload import Today, Workload

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="needs haproxy")

#: Seconds.
REQUEST_TIMEOUT = 2.0

#: Seconds by which a PUT may take longer, with a cache.
CACHE = 1.0

ALL = "SELECT username, date_of_birth::text, version FROM users"


class Cell:
    """A database with the schema, or a copy of one; a cache; and a service."""

    def __init__(self, today: Today, copied: "Cell | None" = None) -> None:
        self.database = Cluster()
        if copied:
            self.database.create_standby(copied.database).start()
        else:
            self.database.create().start()
            done = migrate(self.database.uri())
            assert done.returncode == 0, done.stderr
        self.cache = Valkey().start()
        self.service = Service(
            DB_URI=self.database.uri(),
            CACHE_URI=self.cache.uri,
            TIMEZONE=today.zone,
            REQUEST_TIMEOUT=str(REQUEST_TIMEOUT),
        )

    def stored(self) -> dict[str, tuple[str, int]]:
        return {name: (born, version) for name, born, version in self.database.query(ALL)}

    def close(self) -> None:
        with self.service:
            pass
        self.cache.destroy()
        self.database.destroy()


class Router:
    """HAProxy before the cells; those that are not there yet have no server."""

    def __init__(self, directory: Path, cells: list[Cell]) -> None:
        self.port = free_port()
        self.settings: dict[str, str] = {}
        self._map = directory / "cells.map"
        self.slots = spread(len(cells))
        self._map.write_text("".join(f"{n} {cell}\n" for n, cell in self.slots.items()))
        (directory / "username.lua").write_text(names.lua())
        changes = {
            "/etc/haproxy/": f"{directory}/",
            "/run/haproxy/": f"{directory}/run-",
            "bind :80": f"bind 127.0.0.1:{self.port}",
            r"cell-\d\.internal:80": "127.0.0.1:1",
        }
        configuration = documented("lua-load", changes)
        self._haproxy = HAProxy(directory, configuration)
        for number, cell in enumerate(cells):
            self.open(number, cell)

    def open(self, number: int, cell: Cell) -> None:
        server = f"cell-{number}/pods"
        self._haproxy.tell(f"set server {server} addr 127.0.0.1 port {cell.service.port}")

    def set(self, number: int, cell: str) -> None:
        self.slots[number] = cell
        assert self._haproxy.tell(f"set map {self._map} {number} {cell}") == ""

    def client(self, timeout: float = 15.0) -> Client:
        return Client(self.port, timeout)

    def close(self) -> None:
        self._haproxy.close()


@pytest.fixture(scope="module")
def today() -> Today:
    return Today()


@pytest.fixture(scope="module")
def cells(today: Today) -> Iterator[list[Cell]]:
    cells = [Cell(today), Cell(today)]
    for cell in cells:
        cell.service.wait_until()
    yield cells
    for cell in cells:
        cell.close()


@pytest.fixture(scope="module")
def router(cells: list[Cell]) -> Iterator[Router]:
    with tempfile.TemporaryDirectory(prefix="hello-router-") as directory:
        router = Router(Path(directory), cells)
        yield router
        router.close()


BORN = '{"dateOfBirth": "1990-05-17"}'

#: For each user, paths that mean it. Some have the bytes of names as they are.
SPELLINGS = [
    ["alice", "%61lice", "%61%6C%69%63%65", "alice/", "alice%2F"],
    ["Zo\u00eb", "Zoe\u0308", "Zo%C3%AB", "Zoe%CC%88", "%5Aoe%CC%88"],
    ["\uac01", "\u1100\u1161\u11a8", "\uac00\u11a8"],
    ["\u1ed9", "o\u0302\u0323", "o\u0323\u0302", "\u00f4\u0323"],
    ["\u212bsa", "\u00c5sa", "A\u030asa"],
    ["a-b", "a%2Db"],
]


def test_all_spellings_of_a_name_are_one_user_of_one_cell(
    cells: list[Cell], router: Router
) -> None:
    for spellings in SPELLINGS:
        for first in spellings:
            for cell in cells:
                cell.database.query("DELETE FROM users")
            assert ask(router, "PUT", first, BORN).status == 204
            statuses = {other: ask(router, "GET", other).status for other in spellings}
            assert statuses == dict.fromkeys(spellings, 200), first
            found = [list(cell.stored()) for cell in cells]
            [name] = chain.from_iterable(found)
            assert found[slot(name) % 2] == [name]


def ask(router: Router, method: str, spelling: str, body: str = "") -> Answer:
    """Send a request in which the name is as it is spelled, byte for byte."""
    line = f"{method} /hello/{spelling}".encode().decode("latin-1")
    with Wire(router.port) as wire:
        wire.send(head(line, f"Content-Length: {len(body)}") + body.encode())
        return wire.answer()


def test_names_are_spread_evenly() -> None:
    count = Counter(slot(f"user-{n}") % 4 for n in range(10_000))
    assert min(count.values()) > 2_300


@pytest.mark.parametrize("query", ["", "?tz=Asia/Tokyo"])
def test_a_malformed_name_is_answered_by_some_cell(router: Router, query: str) -> None:
    with router.client() as client:
        for name in ("%FF", "%", "%C3", "\ufffd"):
            assert client.request("GET", f"/hello/{quote(name, safe='%')}{query}").status == 400
        assert client.request("GET", f"/{query}").status == 200


def test_cells_double_under_load(cells: list[Cell], router: Router, today: Today) -> None:
    after = spread(4)
    moving = [number for number in range(SLOTS) if after[number] != router.slots[number]]
    with Workload(
        [router, router], today, writers=6, sharing=2, readers=6, forgetters=0
    ) as workload:
        workload.recover(100)
        cells += [Cell(today, copied=cell) for cell in cells]
        for cell in cells:
            # It runs, and is ready once its database takes writes.
            cell.service.wait_until("/health/live")
        workload.proceed(300)
        begin = time.monotonic()
        for number in moving:
            router.set(number, f"{router.slots[number]}:moving")
        # What was sent before is over then.
        time.sleep(REQUEST_TIMEOUT + CACHE)
        for number, new in enumerate(cells[2:], 2):
            new.database.catch_up(cells[number - 2].database)
            new.database.promote()
        for number, new in enumerate(cells[2:], 2):
            new.service.wait_until()
            router.open(number, new)
        for number in moving:
            router.set(number, after[number])
        workload.recover(100)
        end = time.monotonic()
        stored = {number: cell.stored() for number, cell in enumerate(cells)}
        for number, cell in enumerate(cells):
            strangers = others(after, f"cell-{number}", stored[number])
            assert strangers
            cell.database.query(
                "DELETE FROM users WHERE username = ANY(%s)", parameters=(strangers,)
            )
        workload.recover(100)
    found = [cell.stored() for cell in cells]
    for number, users in enumerate(found):
        assert others(after, f"cell-{number}", users) == []
    rows = {name: row for users in found for name, row in users.items()}
    assert violations(workload.history, today.rows(rows)) == []
    history = workload.history
    assert {o.status for o in history} == {200, 204, 404, 503}
    assert {o.method for o in history if o.status == 503} == {"PUT"}

    def moves(operation: Operation) -> bool:
        return slot(operation.key) in moving

    for what, statuses in {"PUT": (204,), "GET": (200, 404)}.items():
        gaps = [
            longest_gap(
                history,
                *(begin, end),
                lambda o: o.method == what and o.status in statuses and moves(o) == those,  # noqa: B023
            )
            for those in (True, False)
        ]
        print(
            f"{what}: {gaps[0]:.2f} s without an answer for who moves, {gaps[1]:.2f} s for others"
        )
    print(len(history), "requests:", dict(Counter((o.method, o.status) for o in history)))
