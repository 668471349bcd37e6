import io
import sys
import unicodedata
from pathlib import Path

import pytest

from scripts.cells import SLOTS, key, main, others, read, slot, spread


def test_all_forms_of_a_name_have_one_key() -> None:
    characters = [chr(number) for number in range(sys.maxunicode + 1)]
    changing = [c for c in characters if unicodedata.decomposition(c) or unicodedata.combining(c)]
    hangul = characters[0xAC00:0xD7A4:97]
    for character in changing + hangul:
        name = f"a{character}b"
        forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
        assert {key(form) for form in forms} == {key(name)}


def test_marks_in_any_order_make_no_difference() -> None:
    assert key("o\u0302\u0323") == key("o\u0323\u0302") == key("\u1ed9") == "o"


def test_each_cell_has_as_many_slots() -> None:
    assert list(spread(4).values()).count("cell-3") == SLOTS // 4


def test_doubling_moves_half_of_each_cell_to_one_other() -> None:
    moves = {(spread(2)[number], spread(4)[number]) for number in range(SLOTS)}
    assert moves == {
        ("cell-0", "cell-0"),
        ("cell-1", "cell-1"),
        ("cell-0", "cell-2"),
        ("cell-1", "cell-3"),
    }


def test_the_commands_say_who_is_of_other_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["map", "2"])
    file = tmp_path / "cells.map"
    # While a slot moves it is still its old cell's.
    file.write_text(capsys.readouterr().out.replace("\n2 cell-0\n", "\n2 cell-0:moving\n"))
    assert read(file) == spread(2)
    names = [f"user-{n}" for n in range(100)]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(names) + "\n"))
    main(["others", str(file), "cell-1"])
    found = capsys.readouterr().out.split()
    assert found == [name for name in names if slot(name) % 2 == 0]
    assert found == others(spread(2), "cell-1", names)
