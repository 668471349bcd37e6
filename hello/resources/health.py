"""The health resources, for probes and for people.

Liveness never asks the database: restarting the service does not mend a database. Readiness asks
until the database answered once: taking every pod out of the Service does not mend it either.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import falcon
import gevent

from hello.checks import Check, Finding, measure, status
from hello.errors import SchemaOutdated, Unavailable
from hello.lifecycle import Process

#: Seconds for a read or a check: fewer than the timeout of any sensible probe.
TIMEOUT = 1.0
#: Seconds, at least, between two looks whether a service that is ready still has a current schema.
LOOK_INTERVAL = 5.0


def _answer(resp: falcon.Response, healthy: bool, document: Mapping[str, Any]) -> None:
    resp.status = falcon.HTTP_200 if healthy else falcon.HTTP_503
    resp.data = json.dumps(document).encode()


class Live:
    """`/health/live`: the process answers."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        _answer(resp, True, {"status": "live"})

    on_head = on_get


class Startup:
    """`/health/startup`: the process has read its settings and answers.

    Startup does not ask the database, as liveness does not: an outage must not restart pods that
    are starting.
    """

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        _answer(resp, True, {"status": "started"})

    on_head = on_get


class Ready:
    """`/health/ready`: data was read once with a current schema, so requests may come.

    A pod stays ready while the databases are away, since they are away for every pod: with no pod
    ready, clients would be refused, where a 503 says when to come back. Only a schema that turns
    out to be outdated ends readiness: the process looks for that in the background, and no probe
    waits for it. See docs/decisions/readiness.md.
    """

    def __init__(self, read: Callable[[float], None], process: Process) -> None:
        self._read = read
        self._process = process
        self._look_at = 0.0

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        if self._process.draining:
            _answer(resp, False, {"status": "draining"})
            return
        if self._process.has_read:
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + LOOK_INTERVAL
                gevent.spawn(self._look)
        else:
            try:
                self._read(TIMEOUT)
            except Unavailable as ex:
                _answer(resp, False, {"status": "unavailable", "reason": ex.detail})
                return
            self._process.has_read = True
            self._look_at = time.monotonic() + LOOK_INTERVAL
        _answer(resp, True, {"status": "ready"})

    on_head = on_get

    def _look(self) -> None:
        try:
            self._read(TIMEOUT)
        except SchemaOutdated:
            self._process.has_read = False
        except Unavailable:
            pass


class Summary:
    """`/health`: each dependency by name, with its state and latency.

    "degraded" says that a dependency is down, and reads are answered all the same.

    Each check opens connections of its own, and anybody may ask. So one request at a time runs the
    checks, and requests that came before it began share what it found.
    """

    def __init__(
        self, checks: Mapping[str, Check], read: Callable[[float], None], process: Process
    ) -> None:
        self._checks = checks
        self._read = read
        self._process = process
        self._lock = threading.Lock()
        self._began = 0.0
        self._found: dict[str, Finding] = {}

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        found = self._ask()
        said = self._status(found)
        dependencies = {
            name: finding.document(finding.public_reason) for name, finding in found.items()
        }
        healthy = said in ("ok", "degraded")
        _answer(resp, healthy, {"status": said, "dependencies": dependencies})

    on_head = on_get

    def _ask(self) -> dict[str, Finding]:
        came = time.monotonic()
        with self._lock:
            if self._began < came:
                began = time.monotonic()
                checks = self._checks.items()
                self._found = {name: measure(check, TIMEOUT) for name, check in checks}
                self._began = began
            return self._found

    def _status(self, found: Mapping[str, Finding]) -> str:
        if self._process.draining:
            return "draining"
        try:
            self._read(TIMEOUT)
        except Unavailable as ex:
            return status(ex, found)
        return status(None, found)
