"""The header fields that every answer has."""

import random
import re
from typing import Any

import falcon

_SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")

HEADERS = (
    # A browser must not guess that an answer is anything else than it says.
    ("X-Content-Type-Options", "nosniff"),
    # A birthday is personal data: no proxy and no browser keeps it.
    ("Cache-Control", "no-store"),
)


def request_id(req: falcon.Request) -> str:
    """The id of a request: the caller's `X-Request-ID` if it is sane, else a new one."""
    known: str | None = req.env.get("hello.request_id")
    if known is None:
        given = req.env.get("HTTP_X_REQUEST_ID")
        # An id need not be secret, and the kernel's random bytes cost ten times as much.
        known = given if given and _SANE.fullmatch(given) else f"{random.getrandbits(128):032x}"
        req.env["hello.request_id"] = known
    return known


class CommonHeaders:
    """Adds HEADERS and the request's id to every answer, and tells the server the request's route.

    The server logs and counts requests by route: a path would hold a username.
    """

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, _resource: Any, _succeeded: bool
    ) -> None:
        req.env["hello.route"] = req.uri_template
        resp.set_headers([*HEADERS, ("X-Request-ID", request_id(req))])
