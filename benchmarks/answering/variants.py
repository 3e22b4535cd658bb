"""Plato without one of its features, to measure the gain of the feature."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from plato.engine import Chunk, GenerateRequest
from plato.planning.protocol import PlanEnded, PlanEvent, PlanLine, Planner, PlanRequest
from plato.runtime import LocalPool


class WholePlan:
    """A planner that holds the lines back until the plan has ended: no part starts before."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner

    async def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent]:
        """See `Planner.plan`."""
        lines: list[PlanLine] = []
        async with aclosing(self._planner.plan(request)) as events:
            async for event in events:
                if isinstance(event, PlanLine):
                    lines.append(event)
                    continue
                if isinstance(event, PlanEnded):
                    for line in lines:
                        yield line
                yield event


class FlatPriority(LocalPool):
    """Engines of this process that decode all requests with the same priority."""

    def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        """See `LocalPool.generate`."""
        return super().generate(replace(request, priority=0), ranked)
