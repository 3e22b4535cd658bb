"""The application: `serve run deployments.app:build key=value ...`.

`build` takes `plato.settings.Settings` as arguments; `app` is the application with settings from
the environment, for `serve build deployments.app:app`.
"""

# No postponed annotations here: Serve reads the annotations of the builder.
from typing import Any

from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from deployments.autoscaling import decoder_scaling
from deployments.decoder import Decoder
from deployments.ingress import Ingress
from deployments.planner import PlannerService
from deployments.routing import PlacedRouter
from deployments.scheduler import SchedulerService
from deployments.store import StoreOwner
from plato.api.questions.body import MAX_UPLOADS
from plato.settings import Settings

CONTROL_CALLS = 64
"""Concurrent calls reserved for lease renewals and status queries, in addition to streams."""
HEALTH = {"health_check_period_s": 2.0, "health_check_timeout_s": 10.0}
"""How soon Serve replaces a process that hangs. Its work has been retried elsewhere by then."""


def _deployment(kind: Any, **options: Any) -> Any:
    """A deployment with options; Serve's decorator hides the method from type checkers."""
    return kind.options(**HEALTH, **options)


def _one_of(resource: str | None) -> dict[str, Any]:
    """Actor options that take one unit of a custom resource."""
    return {"resources": {resource: 1.0}} if resource else {}


def build(settings: Settings) -> Application:
    """Assemble the application."""
    runs = (settings.max_runs + settings.max_waiting_runs) * settings.schedulers
    requests = 2 * settings.max_requests  # As many event streams, see `plato.api.access.limits`.
    service = {"num_cpus": settings.service_cpus, **_one_of(settings.service_resource)}
    placed = RequestRouterConfig(request_router_class=PlacedRouter)
    drained = {"graceful_shutdown_timeout_s": settings.drain_s}
    stores: list[Any] = []
    if settings.redis_url is None:
        stores.append(_deployment(StoreOwner, ray_actor_options=service).bind(settings))
    decoder = _deployment(
        Decoder,
        **decoder_scaling(settings),
        max_ongoing_requests=settings.max_sequences + settings.max_waiting + CONTROL_CALLS,
        ray_actor_options={
            "num_cpus": settings.decoder_cpus,
            "num_gpus": settings.decoder_gpus,
            **_one_of(settings.decoder_resource),
        },
        request_router_config=placed,
        **drained,
    ).bind(settings, *stores)
    planner = _deployment(
        PlannerService,
        num_replicas=settings.planners,
        max_ongoing_requests=runs + CONTROL_CALLS,
        ray_actor_options=service,
        **drained,
    ).bind(settings, decoder)
    scheduler = _deployment(
        SchedulerService,
        num_replicas=settings.schedulers,
        max_ongoing_requests=requests * settings.ingresses + CONTROL_CALLS,
        ray_actor_options=service,
        request_router_config=placed,
        **drained,
    ).bind(settings, planner, decoder, *stores)
    app: Application = _deployment(
        Ingress,
        num_replicas=settings.ingresses,
        # More are refused by the application, so that health never waits behind work.
        max_ongoing_requests=requests + MAX_UPLOADS + CONTROL_CALLS,
        ray_actor_options=service,
        **drained,
    ).bind(settings, scheduler)
    return app


def __getattr__(name: str) -> Application:
    if name == "app":
        return build(Settings())
    raise AttributeError(name)
