"""The errors that clients see, and how each becomes application/problem+json (RFC 9457).

falcon.HTTPError
├── Falcon's own             404 no such route, 405 with Allow, …
└── Problem
    ├── InvalidUsername      400
    ├── InvalidBody          400  not JSON, or not the right JSON
    ├── InvalidDate          400
    ├── UnknownTimeZone      400
    ├── NotStorable          400  the database refuses the value
    ├── UserNotFound         404
    ├── BodyTimeout          408  closes the connection
    ├── BodyTooLarge         413  closes the connection
    ├── EncodedBody          415
    ├── InternalError        500  a defect of the service
    └── TryLater             503  with Retry-After
"""

import json
import logging
from http import HTTPStatus
from typing import Any, ClassVar

import falcon

from hello.errors import Rejected, Unavailable
from hello.telemetry.names import request_id, trace_ids

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 1  # seconds
#: A type is a URI that leads to its description (RFC 9457, 3.1.1): a place in the page at /docs.
DESCRIBED_AT = "/docs#problem-"


class Problem(falcon.HTTPError):
    """An error with a type of its own, made from `slug`. `detail` is for the client."""

    http_status: ClassVar[int]
    slug: ClassVar[str]
    phrase: ClassVar[str]
    http_headers: ClassVar[dict[str, str] | None] = None

    def __init__(self, detail: str) -> None:
        super().__init__(
            self.http_status, title=self.phrase, description=detail, headers=self.http_headers
        )


class InvalidUsername(Problem):
    http_status, slug, phrase = 400, "invalid-username", "Invalid username"


class InvalidBody(Problem):
    http_status, slug, phrase = 400, "invalid-body", "Invalid body"


class InvalidDate(Problem):
    http_status, slug, phrase = 400, "invalid-date", "Invalid date of birth"


class UnknownTimeZone(Problem):
    http_status, slug, phrase = 400, "unknown-time-zone", "Unknown time zone"


class NotStorable(Problem):
    http_status, slug, phrase = 400, "not-storable", "Not storable"


class UserNotFound(Problem):
    http_status, slug, phrase = 404, "user-not-found", "User not found"


class BodyTimeout(Problem):
    http_status, slug, phrase = 408, "body-timeout", "Body too slow"
    # The rest of the body may still come, and must not be taken for the next request.
    http_headers = {"Connection": "close"}


class BodyTooLarge(Problem):
    http_status, slug, phrase = 413, "body-too-large", "Body too large"
    http_headers = {"Connection": "close"}


class EncodedBody(Problem):
    http_status, slug, phrase = 415, "encoded-body", "Encoded body"
    http_headers = {"Accept-Encoding": "identity"}  # RFC 9110, section 15.5.16


class InternalError(Problem):
    http_status, slug, phrase = 500, "internal-error", "Internal error"


class TryLater(Problem):
    http_status, slug, phrase = 503, "try-later", "Try again later"
    http_headers = {"Retry-After": str(RETRY_AFTER)}


#: The detail of a problem that is a defect of the service.
DEFECT = "The service made a mistake. It is in the log."


def document(
    type_: str, status: HTTPStatus, detail: str, request_id: str, title: str = ""
) -> bytes:
    """A problem as JSON: RFC 9457, section 3."""
    members = {
        "type": type_,
        "title": title or status.phrase,
        "status": status.value,
        "detail": detail,
        "request_id": request_id,
    }
    return json.dumps(members, ensure_ascii=False).encode()


def serialize(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    """Falcon's error serializer."""
    status = HTTPStatus(error.status_code)
    type_uri, title = "about:blank", ""
    if isinstance(error, Problem):
        type_uri, title = f"{DESCRIBED_AT}{error.slug}", error.phrase
    detail = error.description or status.description or status.phrase
    resp.data = document(type_uri, status, detail, request_id(req.env), title)
    resp.content_type = MEDIA_TYPE


def unavailable(_req: Any, _resp: Any, ex: Unavailable, _params: Any) -> None:
    raise TryLater(f"{ex.detail[0].upper()}{ex.detail[1:]}.") from ex


def rejected(_req: Any, _resp: Any, ex: Rejected, _params: Any) -> None:
    raise NotStorable("The database cannot store this username or date.") from ex


def unexpected(req: falcon.Request, _resp: Any, ex: Exception, _params: Any) -> None:
    # The values of the request are personal data and stay out of the log.
    trace_id, span_id = trace_ids(req.env) or (None, None)
    ids = {"request_id": request_id(req.env), "trace_id": trace_id, "span_id": span_id}
    log.error("defect while answering request %s", request_id(req.env), exc_info=ex, extra=ids)
    raise InternalError(DEFECT) from ex


def register(app: Any) -> None:
    """Make the app answer every error as a problem."""
    app.set_error_serializer(serialize)
    app.add_error_handler(Exception, unexpected)
    app.add_error_handler(Unavailable, unavailable)
    app.add_error_handler(Rejected, rejected)
