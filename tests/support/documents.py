"""Configurations that documents have, to be run as they stand there."""

import re
from collections.abc import Mapping

from tests.support.checkout import ROOT


def documented(page: str, language: str, changes: Mapping[str, str], word: str = "") -> str:
    """The one block of a page in docs/ in a language that has a word, with some texts replaced.

    The texts are regular expressions, and each must be there.
    """
    text = (ROOT / "docs" / page).read_text("utf-8")
    blocks = re.findall(f"```{language}\n(.*?)```", text, re.DOTALL)
    [block] = [block for block in blocks if word in block]
    for old, new in changes.items():
        block, number = re.subn(old, new, block)
        assert number, f"{page}: no {old}"
    return block
