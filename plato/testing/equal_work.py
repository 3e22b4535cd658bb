"""Equal work for measurements: a given plan that is decoded as if the model had written it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from plato.engine import GenerateRequest
from plato.planning.given import write_plan
from plato.planning.planner import ModelPlanner
from plato.planning.protocol import PlanEvent, PlanLine, PlanRequest


class ScriptedPlanner(ModelPlanner):
    """A planner that decodes `PlanRequest.script`, where there is one, a step for each token."""

    def longest_title(self, request: PlanRequest) -> int:
        """The longest of the script's titles, if that is longer."""
        titles = (len(node.title) for node in request.script)
        return max(super().longest_title(request), *titles, 0)

    def generate_request(self, request: PlanRequest) -> GenerateRequest:
        """The sequence that is the plan, with its tokens chosen."""
        generate = super().generate_request(request)
        if not request.script:
            return generate
        return replace(generate, script=self.tokenizer.text(write_plan(request.script)))

    async def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent, None]:
        """Decode a plan; the nodes are the script's own, with their budgets."""
        async with aclosing(super().plan(request)) as events:
            async for event in events:
                if request.script and isinstance(event, PlanLine):
                    event = replace(event, node=request.script[event.node.number - 1])
                yield event
