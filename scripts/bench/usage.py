"""What processes use, from /proc."""

import os
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Memory(NamedTuple):
    """In MB. `pss` counts a page that n processes share as 1/n of a page in each."""

    rss: float
    pss: float


def tree(pid: int) -> list[int]:
    """A process and everything below it."""
    # Not from /proc/…/children, which skips some while others end.
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(name)] = int(_stat(int(name))[1])
        except OSError:
            continue  # it has ended
    pids = [pid]
    for parent in pids:  # grows while it is read
        pids += [child for child, its_parent in parents.items() if its_parent == parent]
    return pids


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and everything below it, the dead included.

    A process that ends hands its time to its parent's counters for children, so the sum
    over the living, those counters included, loses nothing, unless one ends meanwhile.
    """
    for _ in range(100):
        members = tree(pid)
        try:
            # utime, stime, cutime, cstime
            ticks = sum(sum(map(int, _stat(member)[11:15])) for member in members)
        except OSError:
            continue
        if tree(pid) == members:
            return ticks / _TICKS
    raise RuntimeError(f"the processes below {pid} come and go too fast to be counted")


def _stat(pid: int) -> list[str]:
    """The fields from the third on; the second, a name, may contain anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def memory(pid: int, workers: int) -> Memory:
    """RSS of the largest process of a server, and PSS of all of it per worker."""
    rss, pss = [], []
    for member in tree(pid):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:
            continue
        kb = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        if kb:  # not a zombie
            rss.append(kb["Rss"])
            pss.append(kb["Pss"])
    return Memory(max(rss) / 1024, sum(pss) / 1024 / workers)
