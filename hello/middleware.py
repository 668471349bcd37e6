"""What every answer has in common."""

import os
import re
import time
from typing import Any

import falcon

from hello.telemetry import answered

_SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")

HEADERS = {
    # A browser must not guess that an answer is anything else than it says.
    "X-Content-Type-Options": "nosniff",
    # A birthday is personal data: no proxy and no browser keeps it.
    "Cache-Control": "no-store",
}


def request_id(req: falcon.Request) -> str:
    """The id of a request: the caller's `X-Request-ID` if it is sane, else a new one."""
    known: str | None = req.env.get("hello.request_id")
    if known is None:
        given = req.env.get("HTTP_X_REQUEST_ID")
        known = given if given and _SANE.fullmatch(given) else os.urandom(16).hex()
        req.env["hello.request_id"] = known
    return known


class RequestID:
    """Adds the id of the request to every answer."""

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: Any, succeeded: bool
    ) -> None:
        resp.set_header("X-Request-ID", request_id(req))


class CommonHeaders:
    """Adds HEADERS to every answer."""

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: Any, succeeded: bool
    ) -> None:
        for name, value in HEADERS.items():
            resp.set_header(name, value)


class Measurement:
    """Counts and times every request by its route, and tells the server which that was."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        req.env["hello.start"] = time.monotonic()

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: Any, succeeded: bool
    ) -> None:
        env, route = req.env, req.uri_template
        env["hello.route"] = route
        # Falcon refuses some methods before it asks middleware.
        now = time.monotonic()
        answered(route, req.method, resp.status, now - env.get("hello.start", now))
