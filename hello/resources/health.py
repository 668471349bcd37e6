"""For probes and for people.

Liveness never asks the database: restarting the service does not mend a database.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import falcon

from hello.errors import Unavailable
from hello.lifecycle import Process

#: Seconds. Shorter than the timeout of any sensible probe.
TIMEOUT = 1.0

#: Returns if a dependency works within the given seconds; raises Unavailable if not.
Check = Callable[[float], None]


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

    Like liveness it does not ask the database, so that an outage does not keep
    restarting whoever starts meanwhile.
    """

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        _answer(resp, True, {"status": "started"})

    on_head = on_get


class Ready:
    """`/health/ready`: requests can be answered: not draining, data can be read, schema current."""

    def __init__(self, read: Check, process: Process) -> None:
        self._read = read
        self._process = process

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        if self._process.draining:
            _answer(resp, False, {"status": "draining"})
            return
        try:
            self._read(TIMEOUT)
        except Unavailable as ex:
            _answer(resp, False, {"status": "unavailable", "reason": ex.detail})
        else:
            _answer(resp, True, {"status": "ready"})

    on_head = on_get


class Summary:
    """`/health`: each dependency by name, with its state and latency."""

    def __init__(self, checks: Mapping[str, Check], process: Process) -> None:
        self._checks = checks
        self._process = process

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        dependencies = {name: self._measure(check) for name, check in self._checks.items()}
        healthy = all(state["state"] == "up" for state in dependencies.values())
        if self._process.draining:
            status = "draining"
        else:
            status = "ok" if healthy else "unavailable"
        _answer(resp, status == "ok", {"status": status, "dependencies": dependencies})

    on_head = on_get

    @staticmethod
    def _measure(check: Check) -> dict[str, Any]:
        start = time.monotonic()
        try:
            check(TIMEOUT)
        except Unavailable as ex:
            return {"state": "down", "reason": ex.detail}
        return {"state": "up", "latency_ms": round((time.monotonic() - start) * 1000, 2)}
