"""The ingress: the HTTP API over the schedulers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle, DeploymentResponse
from starlette.applications import Starlette

from deployments.handles import ask, is_fault, stream
from deployments.metrics import replica_recorder, start_sampling
from deployments.replica import start_replica
from plato.api.app import new_app
from plato.api.drain import Drain
from plato.api.passthrough import Upstreams
from plato.engine import ReplicaStatus, SamplingParams
from plato.engine.tokenizer_config import context_length
from plato.models.adapter import ModelFiles
from plato.models.sampling import default_sampling
from plato.patience import Patience
from plato.prompting import ChatTemplate, Tokenizer
from plato.runs import EventId, RunEvents, RunPage, RunRequest, RunSnapshot, RunState
from plato.runs.failover import call_with_failover, follow_detached, follow_with_failover
from plato.settings import Settings
from plato.tracing import open_tracing

CALL_DEADLINE_S = 5.0
ABANDONED_S = 10.0
"""When the call to a scheduler that was silent is cancelled. If its process was only late, another
call has joined the same run by then, and must not lose it to the one that was given up."""


class ServeRunService:
    """Schedulers behind a Serve handle: implements `plato.api.service.RunService`."""

    def __init__(
        self,
        settings: Settings,
        scheduler: DeploymentHandle[Any],
        context_length: int,
        fingerprint: str,
        sampling: SamplingParams,
        thinks: bool,
    ) -> None:
        self.context_length = context_length
        self.fingerprint = fingerprint
        self.sampling = sampling
        self.thinks = thinks
        self._settings = settings
        self._patience = Patience(settings.silence_s)
        self._scheduler = scheduler
        self._streaming = scheduler.options(stream=True)

    def answer(self, state: RunState) -> AsyncGenerator[RunEvents]:
        """Have a scheduler drive the run, and another one if it fails or is silent."""
        return follow_with_failover(self._drive, state, self._settings.failover_s, is_fault)

    async def open(self, request: RunRequest) -> None:
        """Start a detached run on any scheduler."""
        deadline_s = self._settings.patience_s + CALL_DEADLINE_S
        await self._call(lambda: self._scheduler.open.remote(request), request.run_id, deadline_s)

    def events(self, request: RunRequest) -> AsyncGenerator[RunEvents]:
        """Follow a detached run at whichever scheduler drives it."""

        async def follow(after: EventId) -> AsyncGenerator[RunEvents]:
            tenant, run_id = request.tenant, request.run_id
            owner = await self._call(lambda: self._scheduler.owner.remote(tenant, run_id), run_id)
            batches: AsyncGenerator[RunEvents] = stream(
                lambda: self._streaming.follow.remote(tenant, run_id, after, replica=owner),
                patience=self._patience,
            )
            async with aclosing(batches):
                async for batch in batches:
                    yield batch

        return follow_detached(follow, request.run_id, self._settings.failover_s, is_fault)

    async def snapshot(self, tenant: str, run_id: str) -> RunSnapshot:
        """The current state of a run."""
        snapshot: RunSnapshot = await self._call(
            lambda: self._scheduler.snapshot.remote(tenant, run_id), run_id
        )
        return snapshot

    async def overviews(
        self, tenant: str, before: str | None, limit: int, status: str | None
    ) -> RunPage:
        """The newest runs of a tenant, from any scheduler."""
        page: RunPage = await self._call(
            lambda: self._scheduler.overviews.remote(tenant, before, limit, status), ""
        )
        return page

    async def cancel(self, tenant: str, run_id: str) -> None:
        """Cancel a run, whichever scheduler drives it."""
        deadline_s = self._settings.failover_s + CALL_DEADLINE_S
        await self._call(lambda: self._scheduler.cancel.remote(tenant, run_id), run_id, deadline_s)

    async def ready(self) -> dict[str, object]:
        """The readiness of the schedulers."""
        state: dict[str, object] = await ask(self._scheduler.ready.remote)
        return state

    async def decoders(self) -> tuple[ReplicaStatus, ...]:
        """The decoders, as a scheduler sees them."""
        found: tuple[ReplicaStatus, ...] = await self._call(self._scheduler.decoders.remote, "")
        return found

    def _drive(self, request: RunRequest, received: RunEvents | None) -> AsyncGenerator[RunEvents]:
        return stream(
            lambda: self._streaming.run.remote(request, received),
            patience=self._patience,
            abandoned_s=ABANDONED_S,
        )

    async def _call(
        self,
        call: Callable[[], DeploymentResponse[Any]],
        run_id: str,
        deadline_s: float = CALL_DEADLINE_S,
    ) -> Any:
        """Call any scheduler, and another one if it fails."""
        return await call_with_failover(lambda: ask(call), run_id, deadline_s, is_fault)


def _thinks(settings: Settings, folder: str) -> bool:
    """See `RunService.thinks`; asked only in front of upstreams, where somebody else can think."""
    return bool(settings.upstreams) and ChatTemplate(Tokenizer.load(folder)).thinks


@serve.deployment
@serve.ingress()
class Ingress:
    """One replica of the HTTP API."""

    async def __init__(self, settings: Settings, scheduler: DeploymentHandle[Any]) -> None:  # type: ignore[misc]
        """Bind the API to the schedulers."""
        self._tracing = open_tracing(settings, start_replica(settings))
        self._settings = settings
        self._drain = Drain()
        # From here and not through the decoders: a hop of Ray for every token would cost more than
        # all else. They end with this process.
        self._upstreams = Upstreams.of(settings)
        files = await asyncio.to_thread(ModelFiles.resolve, settings)
        self._service = ServeRunService(
            settings,
            scheduler,
            context_length(str(files.folder)),
            files.fingerprint(settings.dtype),
            default_sampling(settings, files.folder),
            await asyncio.to_thread(_thinks, settings, str(files.folder)),
        )
        self._sampling = start_sampling()

    def __serve_build_asgi_app__(self) -> Starlette:
        """Called by Serve after the constructor."""
        return new_app(
            self._service,
            self._settings,
            replica_recorder(),
            self._drain,
            self._upstreams,
            self._tracing,
        )

    async def drain(self) -> None:
        """Refuse new questions; returns when all answers have ended, within `drain_s`.

        Their spans are sent then, too.
        """
        await self._drain.finish(self._settings.drain_s)
        if self._tracing is not None:
            await self._tracing.close()

    async def __del__(self) -> None:
        """Called by Serve on a graceful shutdown, after the responses have ended."""
        # It may be missing, if the constructor has failed.
        if tracing := getattr(self, "_tracing", None):
            await tracing.close()
