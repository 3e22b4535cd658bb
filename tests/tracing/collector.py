"""A collector in this process: a real HTTP server that takes spans by OTLP."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

DEADLINE_S = 10.0
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
"""Of a client that has a trace of its own; its span never gets here."""


@dataclass(frozen=True)
class Seen:
    """A span as the collector got it; times are in nanoseconds."""

    name: str
    trace: str
    id: str
    parent: str
    begin: int
    end: int
    kind: int
    attributes: dict[str, Any]
    events: tuple[tuple[str, int, dict[str, Any]], ...]
    failed: bool
    message: str
    resource: dict[str, Any]

    def within(self, other: Seen) -> bool:
        """Whether it is a child of another span, and within its time."""
        return self.parent == other.id and other.begin <= self.begin <= self.end <= other.end


class Collector:
    """Keeps all spans; `answers` is cleared to let exports wait."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.headers: list[dict[str, str]] = []
        self.raw = b""
        """All that it got."""
        self.answers = threading.Event()
        self.answers.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.answers.wait(60)
                collector.take(self.path, dict(self.headers), body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Take one request."""
        assert path == "/v1/traces"
        self.headers.append(headers)
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            of = _plain(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_seen(span, of) for span in scope.spans]

    def run(self, run_id: str) -> list[Seen]:
        """The span of a request and those below it, by their begin, once it and its run are there.

        Of a run without a request, that of the run and those below it.
        """
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            spans = sorted(self.spans, key=lambda span: span.begin)
            ids = {"", SPAN, *(span.id for span in spans)}
            for run in spans:
                asked = run.attributes.get("plato.run.id") == run_id
                if asked and run.name.startswith("invoke_workflow") and run.parent in ids:
                    return _family(run, spans)
            time.sleep(0.02)
        raise AssertionError(f"no trace of {run_id}; there is {[s.name for s in self.spans]}")


def _family(run: Seen, spans: list[Seen]) -> list[Seen]:
    """The span above a run, and all below that: a client's trace can have several requests."""
    ids = {run.id, run.parent} - {"", SPAN}
    while more := {span.id for span in spans if span.parent in ids} - ids:
        ids |= more
    return [span for span in spans if span.id in ids]


def _seen(span: Span, resource: dict[str, Any]) -> Seen:
    return Seen(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.kind,
        _plain(span.attributes),
        tuple((e.name, e.time_unix_nano, _plain(e.attributes)) for e in span.events),
        span.status.code == Status.STATUS_CODE_ERROR,
        span.status.message,
        resource,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    found: list[KeyValue] = list(attributes)
    return {each.key: _value(each.value) for each in found}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind or "string_value")
