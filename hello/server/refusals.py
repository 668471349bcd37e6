"""The answer to what is no valid HTTP, and so never reaches the application.

It looks as the application's own errors do (`hello.problems`) and closes the connection, since
nobody knows where the next request would begin. It quotes nothing of what was sent.
"""

import uuid
from http import HTTPStatus

from gunicorn import SERVER
from gunicorn.http import errors

from hello import problems
from hello.middleware import HEADERS
from hello.server import fallback, response

#: Defects of the application, though gunicorn counts them among the wrong requests.
_DEFECTS = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)

#: Status and detail for each error of gunicorn's parser. The first class that fits counts.
_REASONS: dict[type[Exception], tuple[int, str]] = {
    errors.LimitRequestLine: (414, "The request line is too long."),
    errors.LimitRequestHeaders: (431, "The header fields are too many or too long."),
    errors.ExpectationFailed: (417, "The only expectation that is met is 100-continue."),
    # RFC 9112, section 6.1
    errors.UnsupportedTransferCoding: (501, "The only transfer coding that is known is chunked."),
    fallback.MissingHost: (400, "A request of HTTP/1.1 needs the header field Host."),
    errors.ObsoleteFolding: (400, "A header field is folded over several lines."),
    errors.InvalidHTTPVersion: (400, "The version must be HTTP/1.0 or HTTP/1.1."),
    errors.InvalidRequestMethod: (400, "The method is not valid."),
    errors.InvalidRequestLine: (400, "The request line is not valid."),
    errors.InvalidHeaderName: (400, "A header field is not valid, or given twice."),
    errors.InvalidHeader: (400, "A header field is not valid, or given twice."),
    errors.ParseException: (400, "The request is not valid HTTP."),
}


def status(ex: Exception) -> HTTPStatus:
    """The status for what gunicorn's parser raised; 500 for anything else."""
    return HTTPStatus(_reason(ex)[0])


def answer(ex: Exception) -> bytes:
    """All of the answer, to be sent as it is."""
    code, detail = _reason(ex)
    request_id = uuid.uuid4().hex
    body = problems.document("about:blank", HTTPStatus(code), detail, request_id)
    fields = [
        ("Server", SERVER),
        ("Date", response.http_date()),
        ("Connection", "close"),
        ("Content-Type", problems.MEDIA_TYPE),
        ("Content-Length", str(len(body))),
        *HEADERS,
        ("X-Request-ID", request_id),
    ]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\n{head}\r\n".encode() + body


def _reason(ex: Exception) -> tuple[int, str]:
    if not isinstance(ex, _DEFECTS):
        for error, reason in _REASONS.items():
            if isinstance(ex, error):
                return reason
    return 500, problems.DEFECT
