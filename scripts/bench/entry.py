"""A contestant that runs: started, checked, asked, measured, stopped."""

from scripts.bench import contract, load, usage
from scripts.bench.database import Databases
from scripts.bench.registry import Contestant, Store
from scripts.bench.report import Measurement
from scripts.bench.servers import Server


class Entry:
    def __init__(self, contestant: Contestant, databases: Databases, users: int) -> None:
        self.contestant = contestant
        self._databases = databases
        self._users = users
        self._server: Server | None = None
        #: Whether other dates are stored than at the start.
        self._changed = False

    def start(self, workers: int) -> None:
        """Give it its users and see that it answers rightly.

        Raises contract.WrongAnswer, and RuntimeError if it does not answer at all.
        """
        contestant = self.contestant
        if contestant.store is Store.MEMORY:
            uri = "sqlite://"
        else:
            uri = self._databases.create(contestant.name)
        if not contestant.command:
            return
        self._server = Server(contestant.command, contestant.directory, workers, DB_URI=uri)
        self._server.wait()
        if contestant.store is Store.NOWHERE:
            contract.check_constant(self._server.port)
            return
        if contestant.store is Store.MEMORY:
            contract.seed(self._server.port, self._users)
        contract.check(self._server.port)

    def stop(self) -> None:
        if self._server:
            self._server.stop()
            self._server = None

    def measure(self, workload: str, connections: int, seconds: int, warmup: int) -> Measurement:
        """Raises RuntimeError if it cannot be asked."""
        self._restore(workload)
        self._ask(workload, connections, warmup)
        before = self._used()
        asked = self._ask(workload, connections, seconds)
        after = self._used()
        self._changed = self._changed or workload in load.CHANGING
        return Measurement.of(
            asked,
            {name: after[name] - before[name] for name in before},
            usage.memory(self._server.pid, self._server.workers) if self._server else None,
        )

    def _used(self) -> dict[str, float]:
        """What it has used since it was started."""
        used: dict[str, float] = {}
        if self._server:
            used["server"] = usage.cpu_seconds(self._server.pid)
        if self.contestant.store is Store.POSTGRESQL:
            used["postgresql"] = usage.cpu_seconds(self._databases.cluster.pid)
            used["wal"] = self._databases.wal_bytes()
        return used

    def _ask(self, workload: str, connections: int, seconds: int) -> load.Load:
        if self._server:
            asked = load.wrk(self._server.port, workload, connections, seconds, self._users)
            self._server.check()
            return asked
        uri = self._databases.uri(self.contestant.name)
        return load.pgbench(uri, workload, connections, seconds, self._users)

    def _restore(self, workload: str) -> None:
        """The users as they were at the start, where the last workload changed them."""
        if not self._changed:
            return
        if self.contestant.store is Store.POSTGRESQL:
            self._databases.restore(self.contestant.name)
            self._changed = False
        elif self.contestant.store is Store.MEMORY and workload == "put-same":
            # Dates are replaced where they are: other workloads need no other start.
            contract.seed(self._server.port, self._users)
            self._changed = False
