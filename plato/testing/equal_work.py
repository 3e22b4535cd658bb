"""Equal work in benchmarks: a given plan is decoded as if the model had written it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from plato.engine import GenerateRequest
from plato.planning.given import write_plan
from plato.planning.planner import FIELDS, ModelPlanner
from plato.planning.protocol import PlanEvent, PlanLine, PlanRequest


class ScriptedPlanner(ModelPlanner):
    """A planner that decodes `PlanRequest.script`, if there is one, with one step per token."""

    def longest_title(self, request: PlanRequest) -> int:
        """The length of the longest title, including the script's."""
        titles = (len(node.title) for node in request.script)
        return max(super().longest_title(request), *titles, 0)

    def generate_request(self, request: PlanRequest) -> GenerateRequest:
        """The request that decodes the plan, with the script as forced tokens."""
        generate = super().generate_request(request)
        if not request.script:
            return generate
        text = write_plan(request.script, FIELDS)
        return replace(generate, script=self.tokenizer.text(text))

    async def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent, None]:
        """Decode a plan; the nodes are the script's own, with their budgets."""
        async with aclosing(super().plan(request)) as events:
            async for event in events:
                if request.script and isinstance(event, PlanLine):
                    event = replace(event, node=request.script[event.node.number - 1])
                yield event
