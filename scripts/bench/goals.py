"""What the service is meant to reach, as ratios in one run."""

from dataclasses import dataclass

from scripts.bench.load import WORKLOADS
from scripts.bench.registry import BY_NAME
from scripts.bench.report import Report, Rounds, number, ratio, summary
from scripts.bench.suites import USERS

PEERS = ("naive", "flask", "fastapi", "starlette", "blacksheep", "fastify", "go")
_WORDS = {
    "rate": "requests/s",
    "cpu_us": "CPU",
    "server_us": "the server's CPU",
    "wal": "bytes of WAL per request",
    "statements": "statements per request",
    "p99": "p99",
}


@dataclass(frozen=True)
class Goal:
    """`ours`' figure, over `its` if that is given, is at least or at most so much.

    `its` may be several: the least of them counts.
    """

    workload: str
    field: str
    its: tuple[str, ...]
    at_least: float | None = None
    at_most: float | None = None
    connections: int = 32
    ours: str = "hello"
    workers: int = 1

    def __str__(self) -> str:
        what = f"{WORKLOADS[self.workload]}, {self.connections} connections: {_WORDS[self.field]}"
        if self.connections == 1:
            what = what.replace("connections", "connection")
        if self.workers > 1:
            what = what.replace("connections", f"connections, {self.workers} workers")
        if self.ours != "hello":
            what += f" of {self.ours}"
        bound = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"
        if self.its == PEERS:
            return f"{what} {bound} × the best peer's"
        return f"{what} {bound} × {self.its[0]}'s" if self.its else f"{what} {bound}"

    def measured(self, report: Report) -> float | None:
        """None if a contestant is missing."""
        rounds = _rounds(report, self)
        if self.ours not in rounds:
            return None
        if not self.its:
            return summary(rounds, BY_NAME[self.ours])[self.field]
        ratios = [ratio(rounds, self.ours, its, self.field) for its in self.its if its in rounds]
        # Over the least figure: the largest ratio.
        return max((one for one in ratios if one is not None), default=None)

    def line(self, report: Report) -> tuple[str, str, str]:
        figure = self.measured(report)
        if figure is None:
            return str(self), "–", "not measured"
        above = self.at_least is None or figure >= self.at_least
        below = self.at_most is None or figure <= self.at_most
        return str(self), number(figure, 2), "met" if above and below else "**not met**"


def _rounds(report: Report, goal: Goal) -> Rounds:
    setting = (USERS, goal.workers, goal.connections, goal.workload)
    for measured, rounds in report.results.items():
        # A comparison by hand has no suite.
        if measured.suite in ("", "servers", "workers") and measured[1:] == setting:
            return rounds
    return {}


GOALS = (
    Goal("get", "server_us", ("bare",), at_most=1.25),
    *(
        Goal("get", "rate", ("go",), at_least=least, connections=connections)
        for connections, least in ((32, 1.45), (8, 1), (256, 1.8), (1, 0.75))
    ),
    Goal("get", "rate", ("fastapi",), at_least=5.5),
    Goal("get", "rate", ("starlette",), at_least=3),
    *(
        Goal("put", "rate", ("go",), at_least=least, connections=connections)
        for connections, least in ((32, 2.2), (8, 1.4), (1, 1))
    ),
    Goal("put", "rate", ("fastapi",), at_least=5),
    Goal("get", "rate", ("go",), at_least=1.6, connections=64, workers=2),
    Goal("put", "rate", ("go",), at_least=2.5, connections=64, workers=2),
    Goal("get", "cpu_us", ("go",), at_most=0.7),
    Goal("put", "cpu_us", ("go",), at_most=0.35),
    Goal("get", "server_us", ("falcon-constant-bare",), at_most=1.4, ours="falcon-constant-hello"),
    Goal("get-paced", "p99", ("go",), at_most=1, connections=256),
    Goal("put", "rate", ("fastify",), at_least=1.5),
    Goal("put", "rate", ("pgbench",), at_least=0.7),
    # Less than a byte: the server itself writes a few now and then.
    Goal("put-same", "wal", (), at_most=0.5),
    Goal("get", "statements", (), at_most=0.2),
    Goal("put", "statements", (), at_most=0.2),
    Goal("get", "p99", PEERS, at_most=1),
    Goal("put", "p99", PEERS, at_most=1),
)
