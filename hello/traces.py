"""Traces, for those who install `hello[otel]` and name a collector; nobody else imports this.

A request has a span, in the trace of its caller. A batch has a span too, with links to the spans of
all its requests, which link back: one statement serves many requests. The span of a batch is a
child of the first request's that is sampled; a batch without a sampled request has none.

OpenTelemetry's own variables set everything. Attributes are those of its conventions for HTTP and
for databases; docs/telemetry.md lists them. The path is the route's template with REDACTED for what
varies: no span holds a username, a date, or what else clients may write as they like.
"""

import os
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import falcon
import gevent
from opentelemetry import context, propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer

from hello import __version__
from hello.batching import Batcher, Lane
from hello.lifecycle import Process
from hello.telemetry.names import METHODS

Value = TypeVar("Value")
Result = TypeVar("Result")

#: What a batch does, by its kind: the operation, and the table, which only databases have.
_OPERATIONS = {"read": ("SELECT", "users"), "write": ("INSERT", "users"), "cache": ("EVALSHA", "")}

#: Seconds for which a worker that ends waits for the collector.
FLUSH = 2.0


def start(process: Process) -> Tracer:
    """Begin to send spans, until the process ends. For a worker: no thread survives a fork."""
    attributes: dict[str, Any] = {
        "service.name": "hello",
        "service.version": __version__,
        # A worker is an instance: each sends spans of its own.
        "service.instance.id": str(uuid.uuid4()),
        "process.pid": os.getpid(),
    }
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override these attributes.
    attributes.update(OTELResourceDetector().detect().attributes)
    provider = TracerProvider(
        resource=Resource.create(attributes),
        shutdown_on_exit=False,
    )
    # The processor's thread is a greenlet here.
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))

    def stop() -> None:
        with gevent.Timeout(FLUSH, False):
            provider.shutdown()

    process.at_end.append(stop)
    return provider.get_tracer("hello", __version__)


class _Headers(Getter[Mapping[str, Any]]):
    """Header fields of a WSGI environment, for the propagators of OTEL_PROPAGATORS."""

    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        value = carrier.get(f"HTTP_{key.upper().replace('-', '_')}")
        return None if value is None else [value]

    def keys(self, carrier: Mapping[str, Any]) -> list[str]:
        names = (name for name in carrier if name.startswith("HTTP_"))
        return [name[5:].replace("_", "-").lower() for name in names]


_headers = _Headers()


@lru_cache
def _scrubbed(route: str | None) -> str:
    """The path of a request to a route, without what the client chose; a path may be no route's."""
    return re.sub(r"{\w+}", "REDACTED", route) if route else "/REDACTED"


class RequestSpans:
    """Middleware: a span for each request, current while it is answered."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        method = req.method if req.method in METHODS else "_OTHER"
        span = self._tracer.start_span(
            method if method in METHODS else "HTTP",
            context=propagate.extract(req.env, getter=_headers),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": method,
                "url.scheme": req.scheme,
                "network.protocol.version": req.env["SERVER_PROTOCOL"].removeprefix("HTTP/"),
            },
        )
        ids = span.get_span_context()
        req.env["hello.trace"] = (
            trace.format_trace_id(ids.trace_id),
            trace.format_span_id(ids.span_id),
        )
        token = context.attach(trace.set_span_in_context(span))
        req.env["hello.span"] = (span, token)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, _resource: Any, _succeeded: bool
    ) -> None:
        if "hello.span" not in req.env:
            return  # Falcon refuses some methods before it asks middleware
        span, token = req.env.pop("hello.span")
        context.detach(token)
        if span.is_recording():
            status = resp.status_code
            span.set_attribute("http.response.status_code", status)
            route = req.uri_template
            span.set_attribute("url.path", _scrubbed(route))
            if route:
                span.set_attribute("http.route", route)
                span.update_name(f"{req.method if req.method in METHODS else 'HTTP'} {route}")
            if status >= 500:
                span.set_status(StatusCode.ERROR)
                span.set_attribute("error.type", str(status))
        span.end()


class TracedBatcher(Batcher[Value, Result]):
    """A batcher with a span for each batch; `database` is the system that reads and writes ask."""

    def __init__(
        self,
        lanes: Sequence[Lane[Value, Result]],
        *,
        tracer: Tracer,
        database: str,
        kind: str,
        **options: Any,
    ) -> None:
        super().__init__([self._traced(lane) for lane in lanes], kind=kind, **options)
        self._tracer = tracer
        operation, table = _OPERATIONS[kind]
        self._name = f"{operation} {table}".rstrip()
        self._attributes = {
            # Valkey speaks Redis' protocol, and has no name of its own in the conventions.
            "db.system.name": "redis" if kind == "cache" else database,
            "db.operation.name": operation,
            **({"db.collection.name": table} if table else {}),
        }
        #: The spans of the requests that wait for each key.
        self._riders: dict[str, list[Span]] = {}

    def submit(self, key: str, value: Value, timeout: float | None = None) -> Result | None:
        span = trace.get_current_span()
        riders = self._riders.setdefault(key, [])
        riders.append(span)
        try:
            return super().submit(key, value, timeout)
        finally:
            # A span is still here if its request was in no batch: refused, or given up.
            if span in riders:
                riders.remove(span)
            if not riders and self._riders.get(key) is riders:
                del self._riders[key]

    def _traced(self, lane: Lane[Value, Result]) -> Lane[Value, Result]:
        def run(batch: dict[str, Value], deadline: float, /) -> Mapping[str, Result | Exception]:
            riders = [span for key in batch for span in self._riders.pop(key, ())]
            parent = next((span for span in riders if span.is_recording()), None)
            if parent is None:
                return lane(batch, deadline)
            span = self._start(parent, riders, len(batch))
            try:
                return lane(batch, deadline)
            except Exception as ex:
                # The message may name hosts: it is for the log.
                span.set_status(StatusCode.ERROR)
                span.set_attribute("error.type", type(ex).__name__)
                raise
            finally:
                span.end()

        return run

    def _start(self, parent: Span, riders: Iterable[Span], keys: int) -> Span:
        riders = list(riders)
        span = self._tracer.start_span(
            self._name,
            kind=SpanKind.CLIENT,
            context=trace.set_span_in_context(parent),
            links=[Link(rider.get_span_context()) for rider in riders],
            attributes={
                **self._attributes,
                "hello.batch.keys": keys,
                "hello.batch.requests": len(riders),
            },
        )
        for rider in riders:
            rider.add_link(span.get_span_context())
        return span
