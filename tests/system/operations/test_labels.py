"""The labels of the pictures in docs/, with the widths that a browser gives them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import CHROMEDRIVER, CHROMIUM, Browser, chromium

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER),
    reason="needs Chromium and its driver (Debian: chromium, chromium-driver)",
)

DOCS = Path(__file__).parents[3] / "docs"
PICTURES = sorted(DOCS.rglob("*.svg"))

#: The labels that are cut by the picture's border, and those that are half in a box which is
#: not beneath a box of their own. White ones are numbers in circles, which lie above all else.
CUT = """
const border = document.documentElement.getBoundingClientRect();
const inside = (a, b) =>
  b.left <= a.left && a.right <= b.right && b.top <= a.top && a.bottom <= b.bottom;
const apart = (a, b) =>
  a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
const boxes = [...document.querySelectorAll("rect[rx]:not([fill=none])")]
  .map((one) => one.getBoundingClientRect());
return [...document.querySelectorAll("text:not([fill='#ffffff'])")]
  .filter((label) => {
    const at = label.getBoundingClientRect();
    const above = boxes.slice(boxes.findLastIndex((box) => inside(at, box)) + 1);
    return !inside(at, border) || above.some((box) => !apart(at, box));
  })
  .map((label) => label.textContent);
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_no_label_is_cut(browser: Browser, picture: Path) -> None:
    browser.open(picture.as_uri())
    assert browser.run("return document.querySelectorAll('text').length") > 0
    assert browser.run(CUT) == []
