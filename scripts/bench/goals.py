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

    def __str__(self) -> str:
        what = f"{WORKLOADS[self.workload]}, {self.connections} connections: {_WORDS[self.field]}"
        if self.connections == 1:
            what = what.replace("connections", "connection")
        if self.ours != "hello":
            what += f" of {self.ours}"
        bound = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"
        if self.its == PEERS:
            return f"{what} {bound} × the best peer's"
        return f"{what} {bound} × {self.its[0]}'s" if self.its else f"{what} {bound}"

    def measured(self, report: Report) -> float | None:
        """None if a contestant is missing."""
        rounds = _rounds(report, self.workload, self.connections)
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


def _rounds(report: Report, workload: str, connections: int) -> Rounds:
    for setting, rounds in report.results.items():
        if setting.suite == "servers" and setting[1:] == (USERS, 1, connections, workload):
            return rounds
    return {}


GOALS = (
    Goal("get", "rate", ("fastapi",), at_least=4),
    Goal("get", "rate", ("starlette",), at_least=2),
    Goal("get", "rate", ("go",), at_least=1.1),
    Goal("put", "rate", ("fastapi",), at_least=4),
    Goal("put", "rate", ("starlette",), at_least=2),
    Goal("put", "rate", ("go",), at_least=1.5),
    Goal("put", "rate", ("fastify",), at_least=1.5),
    Goal("put", "rate", ("pgbench",), at_least=0.7),
    Goal("get", "cpu_us", ("go",), at_most=0.9),
    Goal("put", "cpu_us", ("go",), at_most=0.5),
    Goal("get", "rate", ("go",), at_least=1.5, connections=256),
    Goal("get", "rate", ("go",), at_least=0.7, connections=1),
    Goal("get", "cpu_us", ("falcon-constant",), at_most=0.2, ours="falcon-constant-hello"),
    # Less than a byte: the server itself writes a few now and then.
    Goal("put-same", "wal", (), at_most=0.5),
    Goal("get", "statements", (), at_most=0.2),
    Goal("put", "statements", (), at_most=0.2),
    Goal("get", "p99", PEERS, at_most=1),
    Goal("put", "p99", PEERS, at_most=1),
)
