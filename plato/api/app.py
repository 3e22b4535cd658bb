"""The HTTP API as an ASGI application: routes, errors, limits and health."""

from __future__ import annotations

from starlette.applications import Starlette

from plato.api.answers import Answers
from plato.api.chat import ChatRoutes
from plato.api.completions import CompletionRoutes
from plato.api.drain import Drain
from plato.api.errors import ErrorReporter
from plato.api.health import HealthRoutes
from plato.api.info import InfoRoutes
from plato.api.intake import Intake
from plato.api.limits import Limits
from plato.api.manners import middleware
from plato.api.models import ModelRoutes
from plato.api.responses import ResponseRoutes
from plato.api.routing import resource
from plato.api.run_list import RunListRoutes
from plato.api.runs import RunRoutes
from plato.api.service import RunService
from plato.api.tenants import Tenants
from plato.metrics import NO_METRICS, Recorder
from plato.settings import Settings


def new_app(
    service: RunService,
    settings: Settings,
    recorder: Recorder = NO_METRICS,
    drain: Drain | None = None,
) -> Starlette:
    """The application; `recorder` records latencies and errors as clients see them.

    `drain` ends it. Raises `SettingsError` if the API keys in the settings are not valid.
    """
    drain = drain or Drain()
    errors = ErrorReporter(recorder)
    tenants, limits = Tenants(settings), Limits(settings)
    intake = Intake(service, settings, recorder, limits, drain)
    answers = Answers(service, settings, errors, recorder, drain)
    chat = ChatRoutes(service, settings.model_name, limits, intake, answers)
    completions = CompletionRoutes(settings.model_name, intake, answers, service.context_length)
    responses = ResponseRoutes(service, settings, errors, limits, intake, answers, drain)
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
            resource("/healthz", GET=health.alive),
            resource("/readyz", GET=health.ready),
        ],
        middleware=middleware(settings),
        exception_handlers=errors.handlers,
    )
    app.router.redirect_slashes = False
    return app
