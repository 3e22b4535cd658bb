"""The decoder: one engine per replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.autoscaling import token_load
from deployments.handles import ask
from deployments.metrics import replica_recorder, start_sampling
from deployments.raised import sends_errors, streams_errors
from deployments.replica import open_replica_store, own_deployment, start_replica
from plato.assembly import new_engine, public_prompts
from plato.engine import Chunk, Engine, EngineStats, GenerateRequest, KVEventBatch, KVPiece, Prompt
from plato.engine.prefill import prefill_public
from plato.errors import UnavailableError
from plato.kv_transfer import KVTransfer
from plato.metrics.recording import EngineSampler, StoreSampler
from plato.prompting.model_tools import ModelTools
from plato.scheduling.kv_events import publish_kv_events
from plato.settings import Settings

STANDSTILL_S = 30.0
"""An engine that completes no step in this time hangs; a prefill chunk takes about 1 s on a CPU."""


@serve.deployment
class Decoder:
    """Decodes sequences with one engine, whose KV tree all runs share."""

    async def __init__(  # type: ignore[misc]
        self, settings: Settings, store: DeploymentHandle[Any] | None = None
    ) -> None:
        """Load the model, outside the event loop; `store` owns the embedded Valkey."""
        name = self._name = start_replica(settings)

        def load() -> tuple[ModelTools, Engine]:
            tools = ModelTools.load(settings)
            # Each replica has an upstream of its own.
            index = serve.get_replica_context().rank.rank if settings.upstreams else 0
            return tools, new_engine(settings, tools.folder, name, tools.tokenizer.config, index)

        tools, self._engine = await asyncio.to_thread(load)
        self._store = await open_replica_store(settings, tools.fingerprint, store)
        # The event loop keeps only weak references to tasks.
        self._prefilling = asyncio.create_task(
            prefill_public(self._engine, public_prompts(tools), tenants=settings.protected),
            name="prefill-public",
        )
        self._publishing = asyncio.create_task(
            publish_kv_events(self._engine, name, self._store), name="publish-kv-events"
        )
        self._recorder = replica_recorder()
        self._transfer = KVTransfer(self._engine, self._recorder)
        self._sampling = start_sampling(
            EngineSampler(self._recorder, self._engine.stats),
            StoreSampler(self._recorder, lambda: self._store.available),
        )

    async def kv_snapshot(self, *, replica: str) -> tuple[str, str, KVEventBatch]:
        """Name, epoch and stored prefixes of this replica. `replica` is for the router."""
        return self._name, self._engine.epoch, await self._engine.kv_snapshot()

    @streams_errors
    async def generate(
        self, request: GenerateRequest, *, replica: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        """Decode one sequence. `replica` is for the router: the caller's ranking."""
        await self._transfer.before(request, partial(self._export_at, request.source))
        async with aclosing(self._engine.generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    @sends_errors
    async def export_kv(
        self, prompt: Prompt, start: int, *, replica: str
    ) -> tuple[str, KVPiece | None]:
        """Name of this replica, and KV for another one; Ray transfers it by its object store."""
        return self._name, await self._engine.export_kv(prompt, start)

    async def _export_at(self, source: str, prompt: Prompt, start: int) -> KVPiece | None:
        peers = own_deployment()
        answered: tuple[str, KVPiece | None] = await ask(
            lambda: peers.export_kv.remote(prompt, start, replica=source)
        )
        name, piece = answered
        # The router uses another replica if the named one is gone or full.
        return piece if name == source else None

    @sends_errors
    async def renew(self, owner: str, ttl_s: float, *, replica: str) -> str:
        """Extend a consumer's lease; see `Engine.renew`. Returns the name of this replica."""
        self._check_engine()
        self._engine.renew(owner, ttl_s)
        return self._name

    async def release(self, run_id: str, *, replica: str) -> None:
        """Drop a run's pins; see `Engine.release`."""
        self._engine.release(run_id)

    async def stats(self, *, replica: str | None = None) -> EngineStats:
        """The engine's counters and state."""
        return self._engine.stats()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve's autoscaling; see `deployments.autoscaling`."""
        return token_load(self._engine.stats().load)

    async def check_health(self) -> None:
        """Raise if the engine has failed or hangs, so that Serve replaces the replica."""
        self._check_engine()

    def _check_engine(self) -> None:
        stats = self._engine.stats()
        if stats.load.running and stats.idle_s > STANDSTILL_S:
            raise UnavailableError(f"the engine has completed no step for {stats.idle_s:.0f} s")
