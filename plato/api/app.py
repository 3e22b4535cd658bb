"""The HTTP API as an ASGI application: routes, errors, limits and health."""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from plato.api.chat import ChatRoutes
from plato.api.drain import Drain
from plato.api.errors import ErrorReporter
from plato.api.intake import Intake
from plato.api.limits import Limits
from plato.api.models import ModelRoutes
from plato.api.runs import RunRoutes
from plato.api.service import RunService
from plato.metrics import NO_METRICS, Recorder
from plato.settings import Settings

READY_DEADLINE_S = 5.0


def new_app(
    service: RunService,
    settings: Settings,
    recorder: Recorder = NO_METRICS,
    drain: Drain | None = None,
) -> Starlette:
    """The application; `recorder` records latencies and errors as clients see them.

    `drain` ends it.
    """
    drain = drain or Drain()
    errors = ErrorReporter(recorder)
    limits = Limits(settings)
    intake = Intake(service, settings, recorder, limits, drain)
    chat = ChatRoutes(service, settings, errors, recorder, limits, intake, drain)
    runs = RunRoutes(service, settings, errors, limits, intake, drain)
    models = ModelRoutes(settings)
    health = HealthRoutes(service, drain)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat.create, methods=["POST"]),
            Route("/v1/chat/completions/{run_id}", chat.get, methods=["GET"]),
            Route("/v1/runs", runs.create, methods=["POST"]),
            Route("/v1/runs/{run_id}", runs.get, methods=["GET", "DELETE"]),
            Route("/v1/runs/{run_id}/events", runs.events, methods=["GET"]),
            Route("/v1/models", models.list, methods=["GET"]),
            Route("/v1/models/{name:path}", models.get, methods=["GET"]),
            Route("/healthz", health.alive, methods=["GET"]),
            Route("/readyz", health.ready, methods=["GET"]),
        ],
        exception_handlers=errors.handlers,
    )


class HealthRoutes:
    """For load balancers and operators."""

    def __init__(self, service: RunService, drain: Drain) -> None:
        self._service = service
        self._drain = drain

    async def alive(self, request: Request) -> JSONResponse:
        """Whether this process runs."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> JSONResponse:
        """200 if a question would be answered now, else 503 with the reason."""
        try:
            self._drain.refuse_new()
            async with asyncio.timeout(READY_DEADLINE_S):
                state = await self._service.ready()
        except Exception as error:
            reason = str(error) or "no response in time"
            return JSONResponse({"status": "not ready", "reason": reason}, 503)
        return JSONResponse({"status": "ready", **state})
