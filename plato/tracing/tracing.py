"""Spans on their way to an OpenTelemetry collector, by OTLP over HTTP."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Mapping

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as OpenSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from plato.runs import MOVED, RunEvent, RunFailed, RunState
from plato.settings import Settings
from plato.tracing.attributes import ERROR_TYPE, RUN_ID
from plato.tracing.run_spans import run_span
from plato.tracing.span import Attributes, Span, Value
from plato.version import __version__

logger = logging.getLogger(__name__)

TRACES_PATH = "/v1/traces"
FLUSH_S = 5.0
"""Time for the last spans to be sent when a process ends."""
TRACE_PARENT = "traceparent"
"""Header of W3C Trace Context."""
_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """Exports spans from a thread of its own, in batches; a full queue drops the oldest.

    The environment variables of OpenTelemetry's SDK set all else: headers (`OTEL_EXPORTER_OTLP_`),
    sampling (`OTEL_TRACES_SAMPLER`), batches (`OTEL_BSP_`), attributes (`OTEL_RESOURCE_ATTRIBUTES`,
    `OTEL_SERVICE_NAME`).
    """

    def __init__(self, settings: Settings, endpoint: str, name: str) -> None:
        """`endpoint` is the collector's URL, with or without `TRACES_PATH`; `name` the process."""
        self._model = settings.model_name
        self._texts = settings.otlp_texts
        own = {"service.name": "plato", "service.version": __version__, "service.instance.id": name}
        # What is set in the environment counts.
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        # At the exit of the interpreter it would wait for as long as exports are tried.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint.removesuffix(TRACES_PATH) + TRACES_PATH)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("plato", __version__)

    def begin_request(self, path: str, scheme: str, headers: Mapping[str, str]) -> RequestSpan:
        """Begin the span of a request, a child of the client's if `headers` name that."""
        span = self._tracer.start_span(
            f"POST {path}",
            _PROPAGATOR.extract(headers),
            SpanKind.SERVER,
            {
                "http.request.method": "POST",
                "http.route": path,
                "url.path": path,
                "url.scheme": scheme,
            },
        )
        return RequestSpan(span)

    def observe(self, state: RunState, events: Iterable[RunEvent]) -> None:
        """Export the spans of a run that has ended, below the request's; a `RunObserver`."""
        if isinstance(state.ended, RunFailed) and state.ended.code in MOVED:
            # The scheduler that drives it now has its events.
            return
        context = _PROPAGATOR.extract({TRACE_PARENT: state.request.traceparent})
        self._export(run_span(state, events, self._model, texts=self._texts), context)

    async def close(self) -> None:
        """Send what is left; what is not sent within `FLUSH_S` is lost. Idempotent."""
        # A daemon, as an export that hangs must not keep the process alive.
        flushing = threading.Thread(target=self._provider.shutdown, name="flush-spans", daemon=True)
        flushing.start()
        await asyncio.to_thread(flushing.join, FLUSH_S)
        if flushing.is_alive():
            logger.warning("spans lost: the collector did not take them within %g s", FLUSH_S)

    def _export(self, span: Span, context: Context) -> None:
        opened = self._tracer.start_span(
            span.name,
            context,
            attributes=_without_none(span.attributes),
            start_time=_nanoseconds(span.start_s),
        )
        if not opened.is_recording():
            return
        for event in span.events:
            at = _nanoseconds(event.at_s)
            opened.add_event(event.name, _without_none(event.attributes), at)
        if span.error is not None:
            opened.set_status(Status(StatusCode.ERROR, span.error))
        below = set_span_in_context(opened, context)
        for child in span.children:
            self._export(child, below)
        opened.end(_nanoseconds(span.end_s))


class RequestSpan:
    """The span of one request, until it has ended."""

    def __init__(self, span: OpenSpan) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        """Names it as parent, in the form of the header."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, set_span_in_context(self._span))
        return carrier[TRACE_PARENT]

    def end(self, *, status: int, complete: bool, run_id: str | None, error: str | None) -> None:
        """End it.

        `status` is the response's, 500 if there is none; `complete` says whether the client has all
        of it, else it has left; `error` is the code of the error that it was told.
        """
        values: Attributes = {
            "http.response.status_code": status,
            "plato.complete": complete,
            RUN_ID: run_id,
            ERROR_TYPE: error if complete else None,
        }
        self._span.set_attributes(_without_none(values))
        # What a client does wrong is no error of the server's span; one in a stream is.
        if status >= 500 or (status < 400 and values[ERROR_TYPE]):
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


def _without_none(attributes: Attributes) -> dict[str, Value]:
    return {name: value for name, value in attributes.items() if value is not None}


def _nanoseconds(unix_s: float) -> int:
    return round(unix_s * 1e9)
