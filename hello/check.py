"""The report of `python -m hello check`, made of what the checks in `hello/checks.py` find.

The command asks what `/health` asks, from a process of its own. It also says why something
failed, since it is for whoever runs the service, and `/health` is for anybody. No line holds a URI
or a secret; what libpq says of a connection names hosts and roles.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gevent

from hello.backends import Backends
from hello.checks import Check, Finding, measure, status
from hello.environment import MISCONFIGURED, SettingsError
from hello.errors import SchemaOutdated, Unavailable
from hello.settings import Settings

#: Seconds that each check may take; all run at once.
TIMEOUT = 5.0
#: Seconds after TIMEOUT until a check is given up: looking up a host may block longer.
GRACE = 1.0

#: Exit codes, beside MISCONFIGURED.
HEALTHY, FAILING = 0, 1


class Report(NamedTuple):
    """What the checks found.

    `primary`, `reads` and `writes` are always there; `reads` is a look-up through the lanes, and
    `writes` does all that a PUT does, but for writing. `seconds` is how long it all took.
    """

    #: The databases and the cache that the settings name, in words.
    settings: str
    primary: Finding
    reads: Finding
    writes: Finding
    replicas: Mapping[str, Finding] = {}
    cache: Finding | None = None
    seconds: float = 0.0

    @property
    def dependencies(self) -> dict[str, Finding]:
        cache = {"cache": self.cache} if self.cache else {}
        return {"primary": self.primary, **self.replicas, **cache}

    @property
    def status(self) -> str:
        """`ok`, `degraded` (reads are answered), or `unavailable`."""
        # A PUT may fail where each dependency answered: the checks ask side by side.
        return status(self.reads.problem, {**self.dependencies, "writes": self.writes})

    @property
    def schema(self) -> str:
        """`current`, `outdated`, or `unknown`."""
        if isinstance(self.primary.problem, SchemaOutdated):
            return "outdated"
        return "unknown" if self.primary.problem else "current"

    @property
    def get(self) -> str:
        """What a GET gets: `any` user, any user but perhaps `stale`, `cached` users, or `none`."""
        if not self.reads.problem:
            return "stale" if self.primary.problem and self.replicas else "any"
        if self.schema == "outdated" or not self.cache or self.cache.problem:
            return "none"
        return "cached"

    @property
    def put(self) -> bool:
        return self.writes.problem is None

    def lines(self) -> list[str]:
        """The report for people: a line for each thing."""
        lines = [
            _line("settings", True, self.settings),
            _line("primary", not self._of_primary(), self._of_primary(), self.primary.seconds),
            _line("schema", self.schema == "current", self._of_schema()),
        ]
        for name, finding in self.replicas.items():
            lines.append(_line(name, not finding.problem, _of_replica(finding), finding.seconds))
        if self.cache:
            reason = self.cache.reason
            lines.append(_line("cache", not reason, reason, self.cache.seconds))
        answers = {
            "any": "",
            "stale": "answered by a replica, perhaps with an old date",
            "cached": "503, but for users in the cache",
            "none": "503",
        }
        lines.append(_line("GET", self.get == "any", answers[self.get]))
        lines.append(_line("PUT", self.put, self._of_put()))
        return lines

    def document(self) -> dict[str, Any]:
        """The report for machines."""
        schema: dict[str, Any] = {"state": self.schema}
        if self.schema == "outdated":
            schema["reason"] = self.primary.reason
        return {
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "settings": {"state": "ok"},
            "schema": schema,
            "dependencies": {
                name: {"latency_ms": finding.latency_ms} | finding.document(finding.reason)
                for name, finding in self.dependencies.items()
            },
            "get": self.get,
            "put": self.put,
        }

    def _of_primary(self) -> str:
        if self.primary.problem and self.schema != "outdated":
            return self.primary.reason
        return ""

    def _of_put(self) -> str:
        if self.put:
            return ""
        # The reason is left out where another line has it already.
        said = self.primary.problem or isinstance(self.writes.problem, SchemaOutdated)
        return "503" if said else f"503: {self.writes.reason}"

    def _of_schema(self) -> str:
        if self.schema == "outdated":
            return self.primary.reason
        return "" if self.schema == "current" else "unknown: the primary does not answer"


def _of_replica(finding: Finding) -> str:
    if isinstance(finding.problem, SchemaOutdated):
        return "it has not replayed the migrations of the schema yet"
    if finding.problem:
        return finding.reason
    lag = finding.details.get("lag_bytes")
    return "" if lag is None else f"follows the primary, {lag} bytes behind"


def _line(name: str, good: bool, text: str = "", seconds: float | None = None) -> str:
    took = "" if seconds is None else f"{seconds * 1000:.0f} ms"
    return f"{name:<10} {'ok' if good else 'FAILED':<6} {took:>8}  {text}".rstrip()


def ask_at_once(checks: Mapping[str, Check], timeout: float) -> dict[str, Finding]:
    """Run all checks, each in a thread; return within `timeout` and GRACE seconds.

    A thread that hangs is left behind: it ends with the process.
    """
    end = time.monotonic() + timeout + GRACE
    found: dict[str, Finding] = {}
    errors: list[BaseException] = []

    def run(name: str, check: Check) -> None:
        try:
            found[name] = measure(check, timeout)
        except BaseException as ex:
            errors.append(ex)
        finally:
            gevent.get_hub().destroy()  # gevent makes a hub in each thread that waits

    threads = [
        threading.Thread(target=run, args=item, name=item[0], daemon=True)
        for item in checks.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    if errors:
        raise errors[0]
    missing = Finding(timeout + GRACE, Unavailable(f"no answer within {timeout:g} s"))
    return {name: found.get(name, missing) for name in checks}


def examine(settings: Settings, timeout: float = TIMEOUT) -> Report:
    """Run every check that the settings call for, `timeout` in seconds for each."""
    start = time.monotonic()
    checks = {name: _alone(settings, name) for name in _checks(settings)}
    if settings.db_uri.lacks_its_file:
        checks = dict.fromkeys(checks, _no_file)
    if settings.db_uri.is_memory:
        # A database in memory belongs to this thread, and its checks never wait.
        found = {name: measure(check, timeout) for name, check in checks.items()}
    else:
        found = ask_at_once(checks, timeout)
    return Report(
        settings=settings.backends,
        primary=found.pop("primary"),
        reads=found.pop("reads"),
        writes=found.pop("writes"),
        cache=found.pop("cache", None),
        replicas=found,
        seconds=time.monotonic() - start,
    )


def _checks(settings: Settings) -> dict[str, Check]:
    backends = Backends(settings)
    reads = _nothing_more(backends.users().ping)
    return {**backends.checks(), "reads": reads, "writes": backends.check_writes}


def _alone(settings: Settings, name: str) -> Check:
    """A check that shares nothing with the others, so that a thread can run it."""

    def check(timeout: float) -> Mapping[str, Any]:
        return _checks(settings)[name](timeout)

    return check


def _nothing_more(ping: Callable[[float], None]) -> Check:
    def check(timeout: float) -> dict[str, Any]:
        ping(timeout)
        return {}

    return check


def _no_file(_timeout: float) -> Mapping[str, Any]:
    raise SchemaOutdated("the file is not there yet: run python -m hello migrate")


def main(*, as_json: bool, timeout: float) -> int:
    """Print what was found; return the exit code."""
    # Failures are in the report: the log would say them twice.
    logging.getLogger("hello").addHandler(logging.NullHandler())
    try:
        settings = Settings.load()
    except SettingsError as ex:
        if as_json:
            wrong = {"state": "wrong", "reason": str(ex)}
            print(json.dumps({"status": "misconfigured", "settings": wrong}))
        else:
            print(_line("settings", False, str(ex)))
        return MISCONFIGURED
    report = examine(settings, timeout)
    if as_json:
        print(json.dumps(report.document()))
    else:
        print("\n".join(report.lines()))
    return HEALTHY if report.status == "ok" else FAILING
