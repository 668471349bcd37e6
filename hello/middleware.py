"""The header fields that every answer has."""

from typing import Any

import falcon

from hello.telemetry.names import request_id

HEADERS = (
    # A browser must not guess that an answer is anything else than it says.
    ("X-Content-Type-Options", "nosniff"),
    # A birthday is personal data: no proxy and no browser keeps it.
    ("Cache-Control", "no-store"),
)


class CommonHeaders:
    """Adds HEADERS and the request's id to every answer, and tells the server the request's route.

    The server logs and counts requests by route: a path would hold a username.
    """

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, _resource: Any, _succeeded: bool
    ) -> None:
        req.env["hello.route"] = req.uri_template
        resp.set_headers([*HEADERS, ("X-Request-ID", request_id(req.env))])
