"""Each decision has a number, a date and a status, and the index has the same."""

import re
from datetime import date
from pathlib import Path

DECISIONS = Path(__file__).parents[2] / "docs" / "decisions"
PAGES = sorted(path for path in DECISIONS.glob("*.md") if path.name != "README.md")
HEAD = re.compile(
    r"# (.+)\n\nDecision (\d+) · (\d{4}-\d\d-\d\d) · (in force|replaced by decision \d+)\n\n"
)


def test_the_index_says_what_the_pages_say() -> None:
    rows = []
    for path in PAGES:
        head = HEAD.match(path.read_text("utf-8"))
        assert head, f"{path.name} does not begin with its title, number, date and status"
        title, number, since, status = head.groups()
        date.fromisoformat(since)
        rows.append((int(number), f"| {number} | [{title}]({path.name}) | {since} | {status} |"))
    assert [number for number, _ in sorted(rows)] == list(range(1, len(PAGES) + 1))
    index = (DECISIONS / "README.md").read_text("utf-8")
    assert re.findall(r"^\| \d.*$", index, re.MULTILINE) == [row for _, row in sorted(rows)]
