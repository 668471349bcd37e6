"""The log: one line for each event on standard output, as JSON for machines or text for people.

No line holds a username, a date of birth, a path, or a setting that may be secret. A line about a
request has the template of its route, and ids.

An access line may be written for every request, so it does not go through `logging`, which would
cost as much as the request.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any
from urllib.parse import unquote

import msgspec
from gunicorn.glogging import Logger as GunicornLogger

from hello import __version__
from hello.telemetry.names import METHODS, OTHER, trace_ids

log = logging.getLogger(__name__)

#: The ids that a caller of `logging` may give as `extra`: they say which request a line is about.
_IDS = ("request_id", "trace_id", "span_id")

#: What a line may say of the service, by the names of OpenTelemetry's resource attributes.
_SERVICE = ("service.name", "service.version")

_encode = msgspec.json.Encoder().encode


class JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": _name(record),
            "pid": record.process,
            "message": record.getMessage(),
            **_service,
        }
        for name in _IDS:
            if value := getattr(record, name, None):
                document[name] = value
        if record.exc_info and (type_ := record.exc_info[0]):
            module = "" if type_.__module__ == "builtins" else f"{type_.__module__}."
            document["exception.type"] = f"{module}{type_.__qualname__}"
            document["exception.message"] = str(record.exc_info[1])
            document["exception.stacktrace"] = self.formatException(record.exc_info)
        return _encode(document).decode()


def _name(record: logging.LogRecord) -> str:
    # gunicorn logs everything as "gunicorn.error", which is no error.
    return record.name.removesuffix(".error")


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = (
            f"{_time(record.created)} {record.levelname} {_name(record)}[{record.process}]:"
            f" {record.getMessage()}"
        )
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def service(environ: Mapping[str, str]) -> dict[str, str]:
    """What OpenTelemetry's variables say of the service, for lines of JSON; {} without them."""
    pairs = (pair.partition("=") for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
    attributes = {name.strip(): unquote(value.strip()) for name, _, value in pairs}
    attributes["service.name"] = environ.get("OTEL_SERVICE_NAME") or attributes.get(
        "service.name", ""
    )
    found = {name: attributes[name] for name in _SERVICE if attributes.get(name)}
    return {"service.version": __version__} | found if found else {}


_formatter: logging.Formatter = TextFormatter()
_service: dict[str, str] = {}


def configure(form: str, level: str) -> None:
    """Begin to log. `form` is json, text, or auto: text if standard output is a terminal.

    `level` is for this project and for gunicorn. Libraries log warnings and errors alone: at a
    finer level they quote what they send, passwords included.
    """
    global _formatter, _service
    _service = service(os.environ)
    if form == "auto":
        form = "text" if sys.stdout.isatty() else "json"
    _formatter = TextFormatter() if form == "text" else JSONFormatter()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("hello").setLevel(level.upper())
    logging.captureWarnings(True)
    # Without this, each line would make a traceback once standard output is closed.
    logging.raiseExceptions = False


class Logger(GunicornLogger):  # type: ignore[misc]
    """gunicorn's logger. `configure` must be called first."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            if isinstance(handler, logging.StreamHandler):
                handler.setFormatter(_formatter)
                if type(handler) is logging.StreamHandler:  # no file
                    handler.setStream(sys.stdout)

    def access(self, resp: Any, _req: Any, environ: Any, request_time: timedelta) -> None:
        """Write the line of a request that gunicorn's own path answered; gunicorn calls it."""
        if self.access_log_enabled:
            self.answered(environ, resp.status, resp.sent or 0, request_time.total_seconds())

    def answered(self, environ: Mapping[str, Any], status: str, sent: int, seconds: float) -> None:
        """Write the line of a request that was answered with `sent` bytes of body."""
        method = environ["REQUEST_METHOD"]
        if method not in METHODS:
            method = OTHER
        line = _access_line(environ, method, status[:3], sent, seconds)
        for handler in self.access_log.handlers:
            if isinstance(handler, logging.StreamHandler):
                with suppress(OSError, ValueError):
                    os.write(handler.stream.fileno(), line)
            else:
                arguments = ("gunicorn.access", logging.INFO, "", 0, line.decode().rstrip())
                handler.handle(logging.LogRecord(*arguments, None, None))


def _access_line(
    environ: Mapping[str, Any], method: str, status: str, sent: int, seconds: float
) -> bytes:
    route = environ.get("hello.route") or OTHER
    request_id = environ.get("hello.request_id")
    if isinstance(_formatter, TextFormatter):
        text = f"{_time(time.time())} {method} {status} {route} {seconds * 1000:.1f} ms"
        return f"{text} {sent} bytes {request_id}\n".encode()
    document = {
        "time": _time(time.time()),
        "level": "info",
        "logger": "access",
        "pid": os.getpid(),
        "message": f"{method} {status} {route}",
        "method": method,
        "route": route,
        "status": int(status),
        "duration_ms": round(seconds * 1000, 3),
        "bytes": sent,
        "request_id": request_id,
        **_service,
    }
    if ids := trace_ids(environ):
        document["trace_id"], document["span_id"] = ids
    return _encode(document) + b"\n"


class Seldom:
    """Logs an event at once, and the number of its repetitions at most once in `interval` seconds.

    For events that clients can cause as often as they like.
    """

    def __init__(
        self,
        say: Callable[[str], object],
        interval: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._interval = interval
        self._clock = clock
        self._next = float("-inf")
        self._unsaid = 0

    def __call__(self, message: str) -> None:
        now = self._clock()
        if now < self._next:
            self._unsaid += 1
            return
        also, self._unsaid = self._unsaid, 0
        self._next = now + self._interval
        self._say(f"{message} ({also} more like this were not logged)" if also else message)


def report(
    _context: object, type_: type[BaseException], value: BaseException, trace: TracebackType | None
) -> None:
    """Log the error that ended a greenlet that nobody waits for, as gevent's `print_exception`."""
    log.error("a greenlet failed", exc_info=(type_, value, trace))


_second = (0, "")


def _time(seconds: float) -> str:
    """A time as in RFC 3339, in UTC, with milliseconds; the rest is formatted once a second."""
    global _second
    whole = int(seconds)
    if _second[0] != whole:
        _second = (whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)))
    return f"{_second[1]}.{int(seconds * 1000) % 1000:03}Z"
