"""A contestant that runs: started, checked, asked, measured, stopped."""

from scripts.bench import contract, load, usage
from scripts.bench.database import Databases
from scripts.bench.registry import Contestant, Store
from scripts.bench.report import Measurement
from scripts.bench.servers import Server


class Entry:
    """`databases` are shared with others, unless the contestant has a replica or a cache."""

    def __init__(self, contestant: Contestant, databases: Databases, users: int) -> None:
        self.contestant = contestant
        self._databases = databases
        self._users = users
        self._server: Server | None = None
        self._workers = 0
        self._owns_databases = False
        #: Whether other dates are stored than at the start.
        self._changed = False
        #: The last load: who has just answered the like needs no warming up.
        self._warm: tuple[str, int] | None = None

    def start(self, workers: int) -> None:
        """Give it its users and see that it answers rightly.

        Raises contract.WrongAnswer, and RuntimeError if it does not answer at all.
        """
        contestant = self.contestant
        self._workers = workers
        if contestant.replica or contestant.cache:
            self._databases = Databases(
                self._users, replica=contestant.replica, cache=contestant.cache
            )
            self._owns_databases = True
        if contestant.store is Store.POSTGRESQL:
            settings = self._databases.create(contestant.name)
        else:
            settings = {"DB_URI": "sqlite://"}
        if not contestant.command:
            return
        self._server = Server(contestant.command, contestant.directory, workers, **settings)
        self._server.wait()
        with self._server.client() as client:
            if contestant.store is Store.NOWHERE:
                contract.check_constant(client)
                return
            if contestant.store is Store.MEMORY:
                contract.seed(client, self._users)
            contract.check(client)

    def stop(self) -> None:
        if self._server:
            self._server.stop()
            self._server = None
        if self._owns_databases:
            self._databases.destroy()
            self._owns_databases = False

    @property
    def cache_version(self) -> str:
        return self._databases.cache_version

    def measure(self, workload: str, connections: int, seconds: int, warmup: int) -> Measurement:
        """Raises RuntimeError if it cannot be asked."""
        self._restore(workload)
        if self.contestant.cache:
            self._fill_cache(connections)
        if self._warm != (workload, connections):
            self._ask(workload, connections, warmup)
            self._warm = (workload, connections)
        before = self._counted()
        before |= self._used()
        asked = self._ask(workload, connections, seconds)
        after = self._used()
        after |= self._counted()
        self._changed = self._changed or workload in load.CHANGING
        return Measurement.of(
            asked,
            {name: after[name] - before[name] for name in before},
            usage.memory(self._server.process.pid, self._workers) if self._server else None,
        )

    def _fill_cache(self, connections: int) -> None:
        """Ask until nearly everybody is cached: its time to live may have passed."""
        for _ in range(10):
            before = self._counted()["found"]
            asked = self._ask("get", connections, 1)
            if self._counted()["found"] - before < asked.requests / 100:
                break

    def _counted(self) -> dict[str, float]:
        if self.contestant.store is not Store.POSTGRESQL:
            return {}
        return self._databases.counted(self.contestant.name)

    def _used(self) -> dict[str, float]:
        """Seconds of CPU since it was started."""
        used: dict[str, float] = {}
        if self._server:
            used["server"] = usage.cpu_seconds(self._server.process.pid)
        if self.contestant.store is Store.POSTGRESQL:
            used |= self._databases.cpu_seconds()
        return used

    def _ask(self, workload: str, connections: int, seconds: int) -> load.Load:
        if self._server and workload == "get-paced":
            asked = load.h2load(self._server.port, connections, seconds, self._users)
            self._server.check()
            return asked
        if self._server:
            asked = load.wrk(self._server.port, workload, connections, seconds, self._users)
            self._server.check()
            return asked
        uri = self._databases.uri(self.contestant.name)
        program = self._databases.programs / "pgbench"
        return load.pgbench(program, uri, workload, connections, seconds, self._users)

    def _restore(self, workload: str) -> None:
        """The users as they were at the start, where the last workload changed them."""
        if not self._changed:
            return
        if self.contestant.store is Store.POSTGRESQL:
            self._databases.restore(self.contestant.name)
        elif self._server and self.contestant.store is Store.MEMORY and workload == "put-same":
            with self._server.client() as client:
                contract.seed(client, self._users)
        else:
            return  # dates are replaced where they are: other workloads need no other start
        self._changed = False
