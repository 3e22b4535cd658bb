"""The scheduler: drives runs over the planner, the decoders and the context store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.handles import ServeDecoderPool, ServePlanner
from deployments.replica import start_replica
from plato.assembly import ModelTools, new_scheduler
from plato.context.redis import RedisContextStore
from plato.runs import RunEvent, RunRequest
from plato.settings import Settings

START_DEADLINE_S = 60.0


@serve.deployment
class SchedulerService:
    """One `GraphScheduler` a replica."""

    async def __init__(  # type: ignore[misc]
        self,
        settings: Settings,
        planner: DeploymentHandle[Any],
        decoder: DeploymentHandle[Any],
        store: DeploymentHandle[Any] | None = None,
    ) -> None:
        """Load the tokenizer and find the store, which is `store`'s if no URL is set."""
        name = start_replica(settings)
        tools = await asyncio.to_thread(ModelTools.load, settings)
        url = settings.redis_url
        async with asyncio.timeout(START_DEADLINE_S):
            if url is None:
                assert store is not None
                url = await store.url.remote()
            # The router learns of the replicas with its first call.
            await decoder.stats.remote()
        self._store = RedisContextStore(
            url, timeout_s=settings.redis_timeout_s, ttl_s=settings.redis_ttl_s
        )
        self._decoder = decoder
        self._scheduler = new_scheduler(
            settings,
            tools,
            planner=ServePlanner(planner),
            pool=ServeDecoderPool(decoder),
            store=self._store,
            name=name,
        )

    async def run(self, request: RunRequest) -> AsyncGenerator[tuple[RunEvent, ...]]:
        """Answer one question; see `GraphScheduler.run`."""
        async with aclosing(self._scheduler.run(request)) as batches:
            async for events in batches:
                yield events

    async def ready(self) -> dict[str, object]:
        """What the next question would find. Raises if no decoder answers."""
        stats = await self._decoder.stats.remote()
        return {
            "decoder": stats.epoch,
            "dtype": stats.dtype,
            "context_store": "ok" if self._store.available else "away",
            "runs": len(self._scheduler.runs),
        }
