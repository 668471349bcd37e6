import json
import logging
import re
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent
import pytest

import hello
from hello.telemetry import logs
from hello.telemetry.logs import JSONFormatter, Logger, TextFormatter, report

OURS = hello.__version__


def record(message: str, *arguments: Any, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord(
        "hello.database.session", logging.WARNING, "", 0, message, arguments, None
    )
    made.__dict__.update(more)
    return made


def test_a_line_of_json() -> None:
    made = record('the %s\n"answers"', "primary", request_id="asked-for", trace_id=None)
    line = JSONFormatter().format(made)
    assert "\n" not in line
    document = json.loads(line)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document.pop("time"))
    assert document == {
        "level": "warning",
        "logger": "hello.database.session",
        "pid": made.process,
        "message": 'the primary\n"answers"',
        "request_id": "asked-for",
    }


def test_a_traceback_stays_in_its_line() -> None:
    try:
        raise ZeroDivisionError("for a test")
    except ZeroDivisionError:
        made = record("a defect", exc_info=sys.exc_info())
    document = json.loads(JSONFormatter().format(made))
    assert document["exception.type"] == "ZeroDivisionError"
    assert document["exception.message"] == "for a test"
    assert document["exception.stacktrace"].endswith("ZeroDivisionError: for a test")
    text = TextFormatter().format(made)
    assert "WARNING hello.database.session[" in text
    assert text.endswith("ZeroDivisionError: for a test")


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, {}),
        (
            {"OTEL_SERVICE_NAME": "birthdays"},
            {"service.name": "birthdays", "service.version": OURS},
        ),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "a=b, service.name=of%20ours ,service.version=2,c"},
            {"service.name": "of ours", "service.version": "2"},
        ),
        # As in OpenTelemetry's own programs, the variable for the name goes before.
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "service.name=x", "OTEL_SERVICE_NAME": "y"},
            {"service.name": "y", "service.version": OURS},
        ),
        ({"OTEL_RESOURCE_ATTRIBUTES": "team=birthdays"}, {}),
    ],
)
def test_lines_name_the_service_where_that_is_set(
    environ: dict[str, str],
    said: dict[str, str],
    logger: Logger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert logs.service(environ) == said
    monkeypatch.setattr(logs, "_formatter", JSONFormatter())
    monkeypatch.setattr(logs, "_service", logs.service(environ))
    handler = Kept()
    logger.access_log.addHandler(handler)
    logger.answered(ENVIRON, "200 OK", 13, 0.00123)
    for line in (handler.lines[0], JSONFormatter().format(record("x"))):
        found = json.loads(line)
        assert {name: found[name] for name in found if name.startswith("service.")} == said


def test_times_are_utc_with_milliseconds() -> None:
    for created, text in [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1e9 + 0.9996, "2001-09-09T01:46:40.999Z"),
        (0.25, "1970-01-01T00:00:00.250Z"),
    ]:
        made = record("x", created=created)
        assert json.loads(JSONFormatter().format(made))["time"] == text


def test_a_greenlet_that_fails_is_logged_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gevent.get_hub(), "print_exception", report)
    gevent.spawn(lambda: 1 / 0).join()
    [made] = caplog.records
    document = json.loads(JSONFormatter().format(made))
    assert document["message"] == "a greenlet failed"
    assert document["exception.stacktrace"].endswith("ZeroDivisionError: division by zero")


ENVIRON = {"REQUEST_METHOD": "GET", "hello.route": "/", "hello.request_id": "asked-for"}


class Kept(logging.Handler):
    """A handler that writes to no file, as one of syslog."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def logger() -> Logger:
    """gunicorn's logger; a test gives it handlers of its own."""
    logger = Logger.__new__(Logger)
    logger.access_log = logging.Logger("gunicorn.access")
    return logger


def test_an_access_line_as_text_says_the_same(
    logger: Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_formatter", TextFormatter())
    with closing(logging.FileHandler(tmp_path / "access")) as handler:
        logger.access_log.addHandler(handler)
        logger.answered(ENVIRON, "200 OK", 13, 0.00123)
        logger.answered({"REQUEST_METHOD": "RUMPEL"}, "400 Bad Request", 0, 0.0)
    first, second = (tmp_path / "access").read_text().splitlines()
    assert re.fullmatch(r"20\S+Z GET 200 / 1\.2 ms 13 bytes asked-for", first)
    assert " 400 " in second
    assert "RUMPEL" not in second


def test_an_access_line_goes_to_a_handler_that_writes_to_no_file(
    logger: Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_formatter", JSONFormatter())
    handler = Kept()
    logger.access_log.addHandler(handler)
    logger.answered(ENVIRON, "200 OK", 13, 0.00123)
    [line] = handler.lines
    assert json.loads(line)["message"] == "GET 200 /"
