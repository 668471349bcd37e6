"""Many clients that put and get while anything happens, and a record of what they saw."""

import http.client
import itertools
import random
import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Protocol

import psycopg2

from hello.birthdays import days_until_birthday
from tests.support.processes import eventually
from tests.support.promise import Operation, Row
from tests.support.service import Answer, Client, Request, Served, forget, get, put

#: Erases a user, with the settings of a service; see `tests.support.service.forget`.
Forget = Callable[..., subprocess.CompletedProcess]


class Asked(Served, Protocol):
    """Whom clients ask: a service, or what stands before some."""

    #: With these somebody is erased there.
    settings: dict[str, str]

    def client(self, timeout: float = 15.0) -> Client: ...


class Backup(Protocol):
    """What an operator does with rows behind the service's back."""

    def copy(self, username: str) -> tuple | None: ...

    def restore(self, username: str, row: tuple | None) -> None: ...


#: An answer says in how many days the birthday is, not the date. So many dates can be
#: told apart; then a writer goes on with another key.
DATES = 365

#: How many of the newest keys are read.
KEYS = 20

#: The part of its PUTs after which a writer goes on with another key: one that no cache knows.
LEAVING = 0.05

#: Requests after which a client connects anew, perhaps to another worker.
PER_CONNECTION = 200

#: Seconds that a client thinks before its next request, on average.
THINKING = 0.005

#: Seconds between two erasures, on average: each is a process of its own.
REMEMBERING = 1.0

#: Seconds between two times that a row is put back, on average, and from its copy until then.
RESTORING = 0.5
BACKED_UP = 0.2

#: The part of them in which it is deleted instead.
DELETING = 0.3

#: What the exit codes of `python -m hello forget` mean to the checker of the promise.
FORGOTTEN = {0: 204, 1: 404, 3: 503}


def days_left(answer: Answer) -> int | None:
    """The days until the birthday that an answer names; None if it names none."""
    message = answer.json.get("message", "").partition("! ")[2]
    if message == "Happy birthday!":
        return 0
    match = re.fullmatch(r"Your birthday is in (\d+) day\(s\)", message)
    return int(match[1]) if match else None


def says(answer: Answer, born: str | None) -> bool:
    """If an answer is that for somebody born then, or for nobody."""
    if born is None:
        return answer.status == 404
    today = datetime.now(UTC).date()
    birthday = date.fromisoformat(born)
    # It may have been given just before midnight.
    days = [days_until_birthday(birthday, today - timedelta(days=n)) for n in (0, 1)]
    return answer.status == 200 and days_left(answer) in days


class Today:
    """A time zone in which it is morning now, so that the date does not change soon."""

    def __init__(self) -> None:
        now = datetime.now(UTC)
        hours = (6 - now.hour + 12) % 24 - 12
        self.date = now.astimezone(timezone(timedelta(hours=hours))).date()
        #: For TIMEZONE. These names count westwards.
        self.zone = f"Etc/GMT{-hours:+d}"

    def born(self, days: int) -> str:
        """A date of birth, `days` before whose birthday it is today."""
        birthday = self.date + timedelta(days=days)
        return birthday.replace(year=2000).isoformat()

    def days(self, born: str) -> int:
        return days_until_birthday(date.fromisoformat(born), self.date)

    def rows(self, stored: Mapping[str, tuple[str, int]]) -> dict[str, Row]:
        """What the checker of the promise is to know of stored dates and versions."""
        return {name: Row(self.days(born), version) for name, (born, version) in stored.items()}


class Key:
    """A user, and the dates that are still to be put."""

    _numbers = itertools.count()

    def __init__(self) -> None:
        self.name = f"user-{next(self._numbers)}"
        self._days = iter(range(DATES))

    def next(self) -> int | None:
        return next(self._days, None)


class Workload:
    """Clients that put and get until the block ends, each with a connection to each service.

    A third of them keep to the first service, and a third to the last, so that they go on while
    another one stands still.

    Of the writers, some have a key of their own, and the others share one. A writer whose
    PUT has an unknown outcome repeats it, goes on with another date or, as often, leaves the
    key. Every writer reads what it has written from another service, at once; readers read any
    key. Now and then somebody erases any key, by `forget` with the settings of one of the
    services, and reads it; and an operator puts the row of any key back as it was, by `backup`, or
    deletes it.
    """

    def __init__(
        self,
        services: Sequence[Asked],
        today: Today,
        *,
        writers: int = 5,
        sharing: int = 3,
        readers: int = 10,
        forgetters: int = 1,
        forget: Forget = forget,
        restorers: int = 1,
        backup: Backup | None = None,
    ) -> None:
        self.history: list[Operation] = []
        self._today = today
        self._forget = forget
        self._backup = backup
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._failure: BaseException | None = None
        self._healthy = 0
        self._keys: tuple[Key, ...] = ()
        self._shared = self._new_key()
        behaviours = [
            *(("writer", self._write),) * writers,
            *(("sharing writer", self._share),) * sharing,
            *(("reader", self._read),) * readers,
            *(("forgetter", self._erase),) * forgetters,
            *(("operator", self._restore),) * (restorers if backup else 0),
        ]
        parts = (services, services[:1], services[-1:])
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(behave, _Caller(f"{kind} {n}", parts[n % 3], self._record)),
            )
            for n, (kind, behave) in enumerate(behaviours)
        ]

    def __enter__(self) -> "Workload":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        if self._failure:
            raise self._failure

    def proceed(self, operations: int, seconds: float = 0.0) -> None:
        """Wait until so many more requests have ended, one way or another, and so much later."""
        goal, end = len(self.history) + operations, time.monotonic() + seconds
        eventually(
            lambda: self._failure or (len(self.history) >= goal and time.monotonic() >= end),
            within=60,
        )

    def recover(self, operations: int = 1_000) -> None:
        """Wait until so many requests in a row were answered as if nothing had happened."""
        self._healthy = 0
        eventually(lambda: self._failure or self._healthy >= operations, within=60)

    def _run(self, behave: Callable[["_Caller"], None], caller: "_Caller") -> None:
        try:
            behave(caller)
        except BaseException as ex:
            self._failure = ex
        finally:
            caller.close()

    def _record(self, operation: Operation) -> None:
        with self._lock:
            self.history.append(operation)
            healthy = operation.status in (200, 204, 404) and not operation.stale
            self._healthy = self._healthy + 1 if healthy else 0

    def _new_key(self) -> Key:
        key = Key()
        with self._lock:
            self._keys = (*self._keys[-KEYS + 1 :], key)
        return key

    def _think(self, seconds: float = THINKING) -> None:
        self._stopped.wait(random.expovariate(1 / seconds))

    def _write(self, caller: "_Caller") -> None:
        key = self._new_key()
        while not self._stopped.is_set():
            days = key.next()
            if days is None or not self._put(caller, key, days):
                key = self._new_key()

    def _share(self, caller: "_Caller") -> None:
        while not self._stopped.is_set():
            with self._lock:
                key = self._shared
                days = key.next()
            if days is None or not self._put(caller, key, days):
                new = self._new_key()
                with self._lock:
                    if self._shared is key:
                        self._shared = new

    def _put(self, caller: "_Caller", key: Key, days: int) -> bool:
        """Put a date until that is acknowledged, and see, or give up.

        Returns whether to go on with another date for this key.
        """
        while not self._stopped.is_set():
            self._think()
            number = random.randrange(caller.services)
            if caller.put(number, key.name, days, self._today.born(days)) == 204:
                caller.get(number + 1, key.name)
                return random.random() >= LEAVING
            next_step = random.choice(("repeat", "another date", "another key"))
            if next_step != "repeat":
                return next_step == "another date"
        return True

    def _read(self, caller: "_Caller") -> None:
        while not self._stopped.is_set():
            self._think()
            key = random.choice(self._keys)
            caller.get(random.randrange(caller.services), key.name)

    def _erase(self, caller: "_Caller") -> None:
        while not self._stopped.is_set():
            self._think(REMEMBERING)
            key = random.choice(self._keys)
            number = random.randrange(caller.services)
            caller.forget(number, key.name, self._forget)
            caller.get(number + 1, key.name)

    def _restore(self, caller: "_Caller") -> None:
        assert self._backup is not None
        while not self._stopped.is_set():
            self._think(RESTORING)
            key = random.choice(self._keys).name
            # Where the database is away, the operator tries again later.
            with suppress(psycopg2.Error):
                row = None
                if random.random() >= DELETING:
                    row = self._backup.copy(key)
                    self._think(BACKED_UP)
                days = self._today.days(row[1]) if row else None
                caller.restore(self._backup, key, row, days)


class _Caller:
    """One client."""

    def __init__(
        self, name: str, services: Sequence[Asked], record: Callable[[Operation], None]
    ) -> None:
        self.services = len(services)
        self._name = name
        self._services = services
        self._record = record
        self._clients: dict[int, tuple[Client, int]] = {}

    def put(self, number: int, key: str, days: int, born: str) -> int | None:
        start = time.monotonic()
        answer = self._ask(number, put(key, born))
        status = answer.status if answer else None
        self._record(Operation(start, time.monotonic(), self._name, "PUT", key, days, status))
        return status

    def get(self, number: int, key: str) -> None:
        start = time.monotonic()
        answer = self._ask(number, get(key))
        end = time.monotonic()
        if answer is None:
            self._record(Operation(start, end, self._name, "GET", key, None, None))
            return
        days = days_left(answer) if answer.status == 200 else None
        stale = answer.headers["Warning"] is not None
        self._record(Operation(start, end, self._name, "GET", key, days, answer.status, stale))

    def forget(self, number: int, key: str, forget: Forget) -> None:
        start = time.monotonic()
        done = forget(key, **self._services[number].settings)
        status = FORGOTTEN.get(done.returncode, done.returncode)
        self._record(Operation(start, time.monotonic(), self._name, "FORGET", key, None, status))

    def restore(self, backup: Backup, key: str, row: tuple | None, days: int | None) -> None:
        start = time.monotonic()
        try:
            backup.restore(key, row)
            status = 204
        except psycopg2.Error:
            status = 503
        end = time.monotonic()
        self._record(Operation(start, end, self._name, "RESTORE", key, days, status))

    def close(self) -> None:
        for client, _ in self._clients.values():
            client.close()
        self._clients.clear()

    def _ask(self, number: int, request: Request) -> Answer | None:
        number %= self.services
        client, used = self._clients.pop(number, (None, 0))
        client = client or self._services[number].client(timeout=15)
        try:
            answer = client.request(*request)
        except (OSError, http.client.HTTPException):
            client.close()
            return None
        if used < PER_CONNECTION:
            self._clients[number] = (client, used + 1)
        else:
            client.close()
        return answer
