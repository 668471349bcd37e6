"""Clients that store growing dates, and what they may find stored in the end."""

from tests.support.postgres import Cluster
from tests.support.processes import eventually
from tests.support.service import Client, day

WRITERS = 16


class Writes:
    """A load of clients that each store growing dates for a user of their own."""

    def __init__(self) -> None:
        self.sent = dict.fromkeys(range(WRITERS), 0)
        self.acknowledged = dict.fromkeys(range(WRITERS), 0)
        self.statuses: list[int] = []

    def __call__(self, client: Client, number: int) -> None:
        self.sent[number] += 1
        answer = client.put(f"user-{number}", day(self.sent[number]))
        if answer.status == 204:
            self.acknowledged[number] = self.sent[number]
        self.statuses.append(answer.status)

    def go_on(self) -> None:
        """Wait until every client's writes are acknowledged again."""
        before = dict(self.acknowledged)
        eventually(
            lambda: all(self.acknowledged[number] > before[number] + 3 for number in before),
            within=30,
        )

    def lost(self, stored: dict[str, str]) -> list[str]:
        """The users whose stored date is none that an acknowledgement leaves possible."""
        return [
            f"user-{number}"
            for number in range(WRITERS)
            if not day(self.acknowledged[number])
            <= stored.get(f"user-{number}", "")
            <= day(self.sent[number])
        ]


def stored(cluster: Cluster) -> dict[str, str]:
    return dict(cluster.query("SELECT username, date_of_birth::text FROM users"))
