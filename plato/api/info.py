"""`GET /v1/info`: what this server is, and what it allows."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from plato.api.answers.run_info import Sampling
from plato.api.models import model_names
from plato.api.operation import operation
from plato.api.questions.body import MAX_BODY_BYTES
from plato.api.service import RunService
from plato.api.wire import AnswerModel
from plato.engine import ReplicaHealth
from plato.engine.grammar import MAX_SCHEMA_CHARS
from plato.errors import UnavailableError
from plato.runs import Mode
from plato.settings import Settings
from plato.version import __version__


class Bounds(AnswerModel):
    """The largest values that requests may have."""

    max_nodes: int
    deadline_s: float
    body_bytes: int
    schema_chars: int
    tenant_requests: int
    """Requests of one API key in progress, per ingress."""
    tenant_runs: int | None
    """Runs of one API key in flight and waiting, per scheduler."""
    tenant_tokens_per_minute: int | None


class Defaults(AnswerModel):
    """What a request gets that does not say."""

    mode: Mode
    plan_parts: int
    node_max_tokens: int
    sequential_max_tokens: int
    sampling: Sampling


class DecoderInfo(AnswerModel):
    """A decoder: an engine, or a server of others."""

    name: str
    state: ReplicaHealth


class Info(AnswerModel):
    """The server."""

    version: str
    model: str
    models: tuple[str, ...]
    """All names of the model, which can choose the mode."""
    context_length: int
    """Tokens of a prompt and its answer."""
    modes: tuple[Mode, ...]
    engine: str
    losses: tuple[str, ...]
    """What the engine cannot do, compared with the built-in one."""
    decoders: tuple[DecoderInfo, ...]
    retention_s: int
    """How long a run can be fetched after its last change."""
    limits: Bounds
    defaults: Defaults


class InfoRoutes:
    """`/v1/info`."""

    def __init__(self, service: RunService, settings: Settings) -> None:
        self._service = service
        self._info = partial(
            Info,
            version=__version__,
            model=settings.model_name,
            models=model_names(settings),
            context_length=service.context_length,
            modes=tuple(Mode),
            engine=settings.engine,
            retention_s=settings.redis_ttl_s,
            limits=Bounds(
                max_nodes=settings.max_nodes,
                deadline_s=settings.run_deadline_s,
                body_bytes=MAX_BODY_BYTES,
                schema_chars=MAX_SCHEMA_CHARS,
                tenant_requests=settings.max_tenant_requests,
                tenant_runs=settings.max_tenant_runs,
                tenant_tokens_per_minute=settings.tenant_tokens_per_minute,
            ),
            defaults=Defaults(
                mode=Mode.AUTO,
                plan_parts=settings.plan_parts,
                node_max_tokens=settings.node_max_tokens,
                sequential_max_tokens=settings.sequential_max_tokens,
                sampling=Sampling.model_validate(service.sampling),
            ),
        )

    @operation(Info, errors=(UnavailableError,))
    async def get(self, request: Request) -> Response:
        """The server, its decoders, its limits and its defaults."""
        decoders = await self._service.decoders()
        lost = dict.fromkeys(clause for each in decoders for clause in each.losses)
        return self._info(
            losses=tuple(lost),
            decoders=tuple(DecoderInfo(name=each.name, state=each.health) for each in decoders),
        ).as_response()
