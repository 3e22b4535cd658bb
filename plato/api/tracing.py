"""The span of a request: the root of the trace of its run."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plato.api.routing import Resource

if TYPE_CHECKING:
    from plato.tracing.tracing import Tracing

TRACE_RESPONSE = "traceresponse"
"""Response header that names the span of the request (draft of W3C Trace Context, level 2)."""


def trace_questions(app: Starlette, tracing: Tracing) -> None:
    """Trace the requests that ask a question: those that POST to a path without the id of a run."""
    paths = {
        route.path
        for route in app.routes
        if isinstance(route, Resource) and "POST" in route.handlers and not route.param_convertors
    }
    app.add_middleware(TracedRequests, tracing=tracing, paths=paths)


class TracedRequests:
    """Gives each POST request to `paths` a span, from its arrival to the end of the response."""

    def __init__(self, app: ASGIApp, tracing: Tracing, paths: AbstractSet[str]) -> None:
        self._app = app
        self._tracing = tracing
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        path = scope.get("path", "").rstrip("/")
        if scope.get("method") != "POST" or path not in self._paths:
            await self._app(scope, receive, send)
            return
        span = self._tracing.begin_request(path, scope["scheme"], Headers(scope=scope))
        state = scope.setdefault("state", {})
        state["traceparent"] = span.traceparent
        status, complete = 500, False

        async def send_traced(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[TRACE_RESPONSE] = span.traceparent
            await send(message)
            if message["type"] == "http.response.body":
                complete = not message.get("more_body", False)

        try:
            await self._app(scope, receive, send_traced)
        finally:
            run_id, error = state.get("run"), state.get("error")
            span.end(status=status, complete=complete, run_id=run_id, error=error)
