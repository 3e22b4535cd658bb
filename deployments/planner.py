"""The planner: turns questions into plan nodes, line by line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.handles import ServeDecoderPool
from deployments.metrics import start_sampling
from deployments.raised import streams_errors
from deployments.replica import HEARTBEATS, start_replica
from plato.assembly import new_planner
from plato.planning.protocol import PlanEvent, PlanRequest
from plato.prompting.model_tools import ModelTools
from plato.settings import Settings
from plato.streams import with_heartbeat


@serve.deployment
class PlannerService:
    """Decodes plans on the decoders, line by line."""

    async def __init__(self, settings: Settings, decoder: DeploymentHandle[Any]) -> None:  # type: ignore[misc]
        """Load the tokenizer."""
        start_replica(settings)
        tools = await asyncio.to_thread(ModelTools.load, settings)
        self._heartbeat_s = settings.silence_s / HEARTBEATS
        self._planner = new_planner(settings, tools, ServeDecoderPool(decoder))
        self._sampling = start_sampling()

    @streams_errors
    def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent | None]:
        """Decode a plan; see `Planner.plan`. `None` is a heartbeat."""
        return with_heartbeat(self._planner.plan(request), self._heartbeat_s)
