"""What this process has counted."""

from collections import Counter

counters: Counter[str] = Counter()


def count(name: str, by: int = 1) -> None:
    counters[name] += by
