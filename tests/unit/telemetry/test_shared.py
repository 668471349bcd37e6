import os
import signal

import pytest

from hello.telemetry.metric_types import Snapshot
from hello.telemetry.shared import Board


def figures(**rows: list[float]) -> Snapshot:
    return {name: {("x",): row} for name, row in rows.items()}


def test_a_slot_is_used_again_and_shows_its_last_figures_meanwhile() -> None:
    board = Board(2)
    assert [board.reserve(), board.reserve(), board.reserve()] == [0, 1, None]
    assert board.read_all() == [(False, {}), (False, {})]
    board.write(0, figures(a=[1]))
    board.write(1, figures(a=[2]))
    board.write(1, figures(a=[3]))
    board.release(1)
    assert board.read_all() == [(True, figures(a=[1])), (False, figures(a=[3]))]
    assert board.reserve() == 1
    # Its new worker has shown nothing yet.
    assert board.read(1) == (False, figures(a=[3]))
    board.write(1, figures(a=[4]))
    assert board.read(1) == (True, figures(a=[4]))


def test_a_worker_killed_while_it_writes_leaves_what_it_wrote_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = Board(1)
    slot = board.reserve()
    assert slot is not None
    board.write(slot, figures(a=[1]))

    class Killed(Exception):
        pass

    def die(data: bytes) -> int:
        raise Killed

    # Between any two steps: before the page, and after its head.
    monkeypatch.setattr("hello.telemetry.shared.zlib.crc32", die)
    with pytest.raises(Killed):
        board.write(slot, figures(a=[2]))
    monkeypatch.undo()
    assert board.read(slot) == (True, figures(a=[1]))


def test_readers_see_whole_figures_while_a_writer_is_killed_again_and_again() -> None:
    # Numbers of all rows are equal in each snapshot that was written.
    board = Board(1)
    slot = board.reserve()
    assert slot is not None
    last = 0.0
    for _ in range(5):
        pid = os.fork()
        if not pid:
            # Nothing of pytest may run in the child.
            value = last
            while True:
                value += 1
                board.write(slot, {"a": {(str(n),): [value] for n in range(200)}})
        try:
            reads = 0
            while reads < 200:
                _, found = board.read(slot)
                values = {row[0] for row in found.get("a", {}).values()}
                assert len(values) <= 1
                if values:
                    reads += 1
                    assert values.pop() >= last
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        last = max(row[0] for row in board.read(slot)[1]["a"].values())
        assert last > 0


def test_too_many_figures_are_refused_and_the_last_ones_stay() -> None:
    board = Board(1)
    board.reserve()
    board.write(0, figures(a=[1]))
    with pytest.raises(ValueError, match="do not fit"):
        board.write(0, {"a": {(str(n),): [float(n)] for n in range(20_000)}})
    assert board.read(0) == (True, figures(a=[1]))
