"""The spans of requests, as a middleware of Falcon's."""

from collections.abc import Mapping
from typing import Any

import falcon
import pytest
from falcon import testing
from opentelemetry import propagate, trace
from opentelemetry.propagators.textmap import Getter

from hello.traces import RequestSpans


def status(method: str, headers: Mapping[str, str] | None = None) -> str | None:
    """That of an answer to a request with spans."""
    app: Any = falcon.App(middleware=[RequestSpans(trace.NoOpTracer())])
    said = testing.StartResponseMock()
    app(testing.create_environ(method=method, headers=headers), said)
    return said.status


def test_a_method_that_falcon_refuses_before_there_is_a_span_is_answered() -> None:
    assert status("WEBSOCKET") == falcon.HTTP_400


def test_a_propagator_is_told_which_headers_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def extract(carrier: Mapping[str, Any], getter: Getter) -> None:
        asked.extend(getter.keys(carrier))

    monkeypatch.setattr(propagate, "extract", extract)
    status("GET", {"X-B3-TraceId": "1"})
    assert "x-b3-traceid" in asked
    assert not any(name.startswith("wsgi") for name in asked)
