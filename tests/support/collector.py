"""A collector of traces: OTLP over HTTP, as OpenTelemetry specifies it."""

import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Span:
    """What a service said of one piece of work."""

    def __init__(self, resource: dict, span: Any) -> None:
        self.resource = resource
        self.name = span.name
        self.kind = span.kind
        self.trace_id = span.trace_id.hex()
        self.id = span.span_id.hex()
        self.parent = span.parent_span_id.hex()
        self.links = {link.span_id.hex() for link in span.links}
        self.attributes = _plain(span.attributes)
        self.failed = span.status.code == span.status.STATUS_CODE_ERROR
        self.start, self.end = span.start_time_unix_nano, span.end_time_unix_nano


def _plain(attributes: Iterable[Any]) -> dict:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


class Collector:
    """Keeps every span. `answers` may be cleared to make it hang."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.headers: list[dict] = []
        #: Everything that was sent, as it came.
        self.raw = b""
        self.answers = threading.Event()
        self.answers.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.answers.wait()
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector._receive(dict(self.headers), body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _receive(self, headers: dict, body: bytes) -> None:
        self.raw += body
        self.headers.append(headers)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _plain(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [Span(resource, span) for span in scope.spans]

    def named(self, name: str) -> list[Span]:
        return [span for span in list(self.spans) if span.name == name]

    def __enter__(self) -> "Collector":
        return self

    def __exit__(self, *_: object) -> None:
        self.answers.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
