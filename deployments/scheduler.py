"""The scheduler: drives runs with the planner, the decoders and the context store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.handles import ServeDecoderPool, ServePlanner, ask
from deployments.metrics import replica_recorder, start_sampling
from deployments.raised import sends_errors, streams_errors
from deployments.replica import (
    HEARTBEATS,
    START_DEADLINE_S,
    open_replica_store,
    own_deployment,
    start_replica,
)
from plato.api.health import readiness
from plato.assembly import new_scheduler
from plato.engine import ReplicaStatus, losses
from plato.errors import RunNotFoundError, UnavailableError
from plato.metrics.recording import StoreSampler
from plato.prompting.model_tools import ModelTools
from plato.runs import BEFORE_ALL, EventId, RunEvents, RunPage, RunRequest, RunSnapshot
from plato.scheduling.stats import SchedulerSampler
from plato.settings import Settings
from plato.tracing import open_tracing

CANCEL_RETRY_S = 0.5


@serve.deployment
class SchedulerService:
    """One `GraphScheduler` per replica."""

    async def __init__(  # type: ignore[misc]
        self,
        settings: Settings,
        planner: DeploymentHandle[Any],
        decoder: DeploymentHandle[Any],
        store: DeploymentHandle[Any] | None = None,
    ) -> None:
        """Load the tokenizer and connect to the store; `store` owns it if no URL is set."""
        name = start_replica(settings)
        self._tracing = open_tracing(settings, name)
        tools = await asyncio.to_thread(ModelTools.load, settings)
        async with asyncio.timeout(START_DEADLINE_S):
            # The router learns about the replicas on its first call.
            stats = await decoder.stats.remote()
        self._heartbeat_s = settings.silence_s / HEARTBEATS
        self._cancel_deadline_s = settings.failover_s
        self._store = await open_replica_store(settings, tools.fingerprint, store)
        self._pool = ServeDecoderPool(decoder)
        recorder = replica_recorder()
        self._scheduler = new_scheduler(
            settings,
            tools,
            planner=ServePlanner(planner, settings.silence_s),
            pool=self._pool,
            store=self._store,
            name=name,
            recorder=recorder,
            losses=losses(stats.capabilities),
            tracing=self._tracing,
        )
        self._scheduler.start()
        self._sampling = start_sampling(
            SchedulerSampler(recorder, self._scheduler.stats),
            StoreSampler(recorder, lambda: self._store.available),
        )

    @streams_errors
    def run(
        self, request: RunRequest, received: RunEvents | None = None
    ) -> AsyncGenerator[RunEvents]:
        """Answer one question; see `GraphScheduler.run`. Empty batches are heartbeats."""
        return self._scheduler.run(request, received, self._heartbeat_s)

    @sends_errors
    async def open(self, request: RunRequest) -> None:
        """Start a detached run; see `GraphScheduler.open`."""
        await self._scheduler.open(request)

    @streams_errors
    def follow(
        self, tenant: str, run_id: str, after: EventId = BEFORE_ALL, *, replica: str | None = None
    ) -> AsyncGenerator[RunEvents]:
        """Events of a run, whichever scheduler drives it; see `RunRegistry.follow`.

        Empty batches are heartbeats. `replica` is for the router: the owner has the events first.
        """
        return self._scheduler.runs.follow(tenant, run_id, EventId(*after), self._heartbeat_s)

    @sends_errors
    async def snapshot(self, tenant: str, run_id: str) -> RunSnapshot:
        """Current state of a run, whichever scheduler drives it; see `RunRegistry.snapshot`."""
        return await self._scheduler.runs.snapshot(tenant, run_id)

    @sends_errors
    async def overviews(
        self, tenant: str, before: str | None, limit: int, status: str | None
    ) -> RunPage:
        """The newest runs of a tenant in the store; see `RunRegistry.overviews`."""
        return await self._scheduler.runs.overviews(tenant, before, limit, status)

    @sends_errors
    async def owner(self, tenant: str, run_id: str) -> str | None:
        """The replica that drives a run; see `RunRegistry.owner`."""
        return await self._scheduler.runs.owner(tenant, run_id)

    @sends_errors
    async def cancel(self, tenant: str, run_id: str) -> None:
        """Cancel a run, whichever scheduler drives it. Raises `RunNotFoundError`.

        While its scheduler is being replaced, this waits for the next one.
        """
        try:
            async with asyncio.timeout(self._cancel_deadline_s):
                while not await self._scheduler.runs.cancel(tenant, run_id):
                    owner = await self._scheduler.runs.owner(tenant, run_id)
                    if owner is None or await self._cancel_at(owner, tenant, run_id):
                        return
                    await asyncio.sleep(CANCEL_RETRY_S)
        except TimeoutError as error:
            raise UnavailableError(
                f"the scheduler of run {run_id} does not respond; retry the cancellation",
                retry_after_s=1.0,
            ) from error

    @sends_errors
    async def cancel_here(self, tenant: str, run_id: str, *, replica: str) -> bool:
        """Cancel a run if this replica drives it. `replica` is for the router."""
        return await self._scheduler.runs.cancel(tenant, run_id)

    async def drain(self) -> None:
        """Hand the runs without followers over; see `GraphScheduler.drain`. Send the last spans."""
        await self._scheduler.drain()
        if self._tracing is not None:
            await self._tracing.close()

    async def ready(self) -> dict[str, object]:
        """Readiness of the decoders and the store. Raises if no decoder decodes."""
        return {
            **readiness(await self.decoders()),
            "context_store": "ok" if self._store.available else "away",
            "runs": len(self._scheduler.runs),
        }

    async def decoders(self) -> tuple[ReplicaStatus, ...]:
        """The decoders, and whether they decode."""
        names = [replica.name for replica in self._pool.replicas()]
        return tuple(await asyncio.gather(*map(self._pool.status, names)))

    async def _cancel_at(self, owner: str, tenant: str, run_id: str) -> bool:
        peers = own_deployment()
        try:
            done: bool = await ask(lambda: peers.cancel_here.remote(tenant, run_id, replica=owner))
        except RunNotFoundError:
            raise
        except Exception:
            # The owner has died: another scheduler will take the run over.
            return False
        return done

    async def __del__(self) -> None:
        """Called by Serve on a graceful shutdown, after the streams have ended."""
        if hasattr(self, "_scheduler"):
            await self.drain()
