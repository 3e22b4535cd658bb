"""The HTTP API as an ASGI application: routes, errors, limits and health."""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse

from plato.api.answers import Answers
from plato.api.chat import ChatRoutes
from plato.api.completions import CompletionRoutes
from plato.api.drain import Drain
from plato.api.errors import ErrorReporter
from plato.api.info import InfoRoutes
from plato.api.intake import Intake
from plato.api.limits import Limits
from plato.api.manners import middleware
from plato.api.models import ModelRoutes
from plato.api.passthrough import PassThrough, Upstreams
from plato.api.passthrough.routes import PASSED_PATHS, PassedRoutes
from plato.api.responses import ResponseRoutes
from plato.api.routing import resource
from plato.api.run_list import RunListRoutes
from plato.api.runs import RunRoutes
from plato.api.service import RunService
from plato.api.tenants import Tenants
from plato.metrics import NO_METRICS, Recorder
from plato.settings import Settings

READY_DEADLINE_S = 5.0


def new_app(
    service: RunService,
    settings: Settings,
    recorder: Recorder = NO_METRICS,
    drain: Drain | None = None,
    upstreams: Upstreams | None = None,
) -> Starlette:
    """The application; `recorder` records latencies and errors as clients see them.

    `drain` ends it, and `upstreams` answer what is not planned; the caller closes them.
    Raises `SettingsError` if the API keys in the settings are not valid.
    """
    drain = drain or Drain()
    errors = ErrorReporter(recorder)
    tenants, limits = Tenants(settings), Limits(settings)
    intake = Intake(service, settings, recorder, limits, drain)
    answers = Answers(service, settings, errors, recorder, drain)
    upstreams = upstreams or Upstreams(())
    passing = PassThrough(
        upstreams, settings, errors, recorder, limits, drain, thinks=service.thinks
    )
    chat = ChatRoutes(service, settings.model_name, limits, intake, answers, passing)
    completions = CompletionRoutes(
        settings.model_name, intake, answers, passing, service.context_length
    )
    responses = ResponseRoutes(service, settings, errors, limits, intake, answers, passing, drain)
    others = PassedRoutes(intake, passing)
    runs = RunRoutes(service, settings, errors, limits, intake, drain)
    listed = RunListRoutes(service, settings.model_name, limits)
    info = InfoRoutes(service, settings)
    models = ModelRoutes(settings)
    health = HealthRoutes(service, drain)
    app = Starlette(
        routes=[
            resource("/v1/chat/completions", tenants, POST=chat.create),
            resource("/v1/chat/completions/{run_id}", tenants, GET=chat.get),
            resource("/v1/completions", tenants, POST=completions.create),
            resource("/v1/responses", tenants, POST=responses.create),
            resource("/v1/responses/{run_id}", tenants, GET=responses.get),
            resource("/v1/responses/{run_id}/cancel", tenants, POST=responses.cancel),
            resource("/v1/runs", tenants, POST=runs.create, GET=listed.list),
            resource("/v1/runs/{run_id}", tenants, GET=runs.get, DELETE=runs.cancel),
            resource("/v1/runs/{run_id}/events", tenants, GET=runs.events),
            resource("/v1/models", tenants, GET=models.list),
            resource("/v1/models/{name:path}", tenants, GET=models.get),
            resource("/v1/info", tenants, GET=info.get),
            *(resource(path, tenants, POST=others.create) for path in PASSED_PATHS if upstreams),
            resource("/healthz", GET=health.alive),
            resource("/readyz", GET=health.ready),
        ],
        middleware=middleware(settings),
        exception_handlers=errors.handlers,
    )
    app.router.redirect_slashes = False
    return app


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
