"""The HTTP API as an ASGI application: routes, errors, limits and health."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette

from plato.api.access.limits import Limits
from plato.api.access.tenants import Tenants
from plato.api.answers.answers import Answers
from plato.api.chat.completions import CompletionRoutes
from plato.api.chat.routes import ChatRoutes
from plato.api.drain import Drain
from plato.api.errors import ErrorReporter
from plato.api.health import HealthRoutes
from plato.api.info import InfoRoutes
from plato.api.manners import middleware
from plato.api.models import ModelRoutes
from plato.api.openapi import OpenApiRoutes
from plato.api.page import page_routes
from plato.api.passthrough import PassThrough, Upstreams
from plato.api.passthrough.routes import PASSED_PATHS, PassedRoutes
from plato.api.questions.intake import Intake
from plato.api.responses.routes import ResponseRoutes
from plato.api.routing import Resource
from plato.api.runs.detached import DetachedRuns
from plato.api.runs.list import RunListRoutes
from plato.api.runs.routes import RunRoutes
from plato.api.service import RunService
from plato.api.tracing import trace_questions
from plato.metrics import NO_METRICS, Recorder
from plato.settings import Settings

if TYPE_CHECKING:
    from plato.tracing.tracing import Tracing


def new_app(
    service: RunService,
    settings: Settings,
    recorder: Recorder = NO_METRICS,
    drain: Drain | None = None,
    upstreams: Upstreams | None = None,
    tracing: Tracing | None = None,
) -> Starlette:
    """The application; `recorder` records latencies and errors as clients see them.

    `drain` ends it, `upstreams` answer what is not planned, and `tracing` has a trace of every
    question; the caller closes them.
    Raises `SettingsError` if the API keys in the settings are not valid.
    """
    drain = drain or Drain()
    errors = ErrorReporter(recorder)
    tenants, limits = Tenants(settings), Limits(settings)
    intake = Intake(service, settings, recorder, limits, drain)
    answers = Answers(service, settings, errors, recorder, drain)
    upstreams = upstreams or Upstreams(())
    passing = PassThrough(upstreams, settings, errors, recorder, drain, thinks=service.thinks)
    detached = DetachedRuns(service, settings, errors, limits, drain)
    name = settings.model_name
    chat = ChatRoutes(service, name, intake, answers, passing, detached)
    completions = CompletionRoutes(name, intake, answers, passing, service.context_length)
    responses = ResponseRoutes(service, name, intake, answers, passing, detached)
    others = PassedRoutes(intake, passing)
    runs = RunRoutes(service, name, intake, detached)
    listed = RunListRoutes(service, name, limits)
    info = InfoRoutes(service, settings)
    models = ModelRoutes(settings)
    openapi = OpenApiRoutes(settings)
    health = HealthRoutes(service, drain)
    app = Starlette(
        routes=[
            Resource("/v1/chat/completions", tenants, POST=chat.create),
            Resource("/v1/chat/completions/{run_id}", tenants, GET=chat.get),
            Resource("/v1/completions", tenants, POST=completions.create),
            Resource("/v1/responses", tenants, POST=responses.create),
            Resource("/v1/responses/{run_id}", tenants, GET=responses.get),
            Resource("/v1/responses/{run_id}/cancel", tenants, POST=responses.cancel),
            Resource("/v1/runs", tenants, POST=runs.create, GET=listed.list),
            Resource("/v1/runs/{run_id}", tenants, GET=runs.get, DELETE=runs.cancel),
            Resource("/v1/runs/{run_id}/events", tenants, GET=runs.events),
            Resource("/v1/models", tenants, GET=models.list),
            Resource("/v1/models/{name:path}", tenants, GET=models.get),
            Resource("/v1/info", tenants, GET=info.get),
            *(Resource(path, tenants, POST=others.create) for path in PASSED_PATHS if upstreams),
            Resource("/openapi.json", GET=openapi.get),
            Resource("/healthz", GET=health.alive),
            Resource("/readyz", GET=health.ready),
            *page_routes(),
        ],
        middleware=middleware(settings, errors.respond_unexpected),
        exception_handlers=errors.handlers,
    )
    app.router.redirect_slashes = False
    if tracing is not None:
        trace_questions(app, tracing)
    return app
