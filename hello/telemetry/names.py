"""Names that the log, the metrics, the traces and the problems share: which request it was.

A request is named by its route's template, its method and its ids; its path would hold a username.
"""

import random
import re
from collections.abc import Mapping, MutableMapping
from typing import Any

#: What stands for everything that has no name of its own.
OTHER = "other"
METHODS = frozenset(("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE"))

_SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")

#: A `traceparent`: version, trace id, id of the caller's span, flags (W3C Trace Context, 3.2).
_TRACEPARENT = re.compile(
    "(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)


def request_id(environ: MutableMapping[str, Any]) -> str:
    """The id of a request: the caller's `X-Request-ID` if it is sane, else a new one."""
    known: str | None = environ.get("hello.request_id")
    if known is None:
        given = environ.get("HTTP_X_REQUEST_ID")
        # An id need not be secret, and the kernel's random bytes cost ten times as much.
        known = given if given and _SANE.fullmatch(given) else f"{random.getrandbits(128):032x}"
        environ["hello.request_id"] = known
    return known


def trace_ids(environ: Mapping[str, Any]) -> tuple[str, str] | None:
    """The ids of the trace and of the span that a request belongs to.

    The span is this service's own where traces are on (hello.traces), else the caller's.
    """
    own: tuple[str, str] | None = environ.get("hello.trace")
    if own or "HTTP_TRACEPARENT" not in environ:
        return own
    match = _TRACEPARENT.fullmatch(environ["HTTP_TRACEPARENT"])
    return (match[1], match[2]) if match else None
