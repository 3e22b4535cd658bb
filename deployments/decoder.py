"""The decoder: one engine a replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ray import serve

from deployments.replica import start_replica
from plato.assembly import engine_config
from plato.engine import Chunk, EngineStats, GenerateRequest
from plato.engine.torch import TorchEngine
from plato.errors import UnavailableError
from plato.models import resolve_model
from plato.settings import Settings

STANDSTILL_S = 30.0
"""An engine that has sequences and ends no step in this time hangs; the longest step, of one chunk
of a prompt, takes about a second on two slow cores."""


@serve.deployment
class Decoder:
    """Turns token ids into tokens, with a KV tree that all runs share."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]
        """Fetch and load the model, off the event loop."""
        name = self._name = start_replica(settings)

        def load() -> TorchEngine:
            folder = str(resolve_model(settings.model, settings.cache_dir))
            return TorchEngine(engine_config(settings, folder, name))

        self._engine = await asyncio.to_thread(load)

    async def generate(
        self, request: GenerateRequest, *, replica: str | None = None
    ) -> AsyncGenerator[Chunk]:
        """Decode one sequence. `replica` is for the router: where the caller wants it."""
        async with aclosing(self._engine.generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def renew(self, owner: str, ttl_s: float, *, replica: str) -> str:
        """Extend a consumer's lease; see `Engine.renew`. Returns the name of this replica."""
        self._check_engine()
        self._engine.renew(owner, ttl_s)
        return self._name

    async def release(self, run: str, *, replica: str) -> None:
        """Drop a run's pins; see `Engine.release`."""
        self._engine.release(run)

    async def stats(self, *, replica: str | None = None) -> EngineStats:
        """The engine's counters and state."""
        return self._engine.stats()

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises: when the engine has died or stands still."""
        self._check_engine()

    def _check_engine(self) -> None:
        stats = self._engine.stats()
        if stats.load.running and stats.idle_s > STANDSTILL_S:
            raise UnavailableError(f"the engine has done no step for {stats.idle_s:.0f} s")
