"""Equal work in benchmarks: a given plan is decoded as if the model had written it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from plato.engine import GenerateRequest, Grammar
from plato.planning.decider import PlanContext
from plato.planning.grammar import outline_grammar, outline_line
from plato.planning.planner import ModelPlanner
from plato.planning.protocol import PlanEvent, PlanLine, PlanRequest
from plato.planning.readers import PlanForm
from plato.planning.rules import Characters, Repeat, Rule
from plato.settings import MAX_TITLE_CHARS

_TITLE: Rule = Repeat(Characters(((0x0A, 0x0A),), excluded=True), 1, MAX_TITLE_CHARS)


class ScriptedPlanner(ModelPlanner):
    """A planner that decodes `PlanRequest.script`, if there is one, with one step per token."""

    def refusal(self, title: str, earlier: Sequence[str]) -> str | None:
        """Nothing: the script is followed to its end."""
        return None

    def grammar(self, request: PlanRequest) -> Grammar:
        """A grammar that the script follows, and that ends with it."""
        if not request.script:
            return super().grammar(request)
        return outline_grammar(len(request.script), _TITLE)

    def generate_request(self, plan: PlanContext, form: PlanForm) -> GenerateRequest:
        """The request that decodes the plan, with the script as forced tokens."""
        generate = super().generate_request(plan, form)
        if not plan.request.script:
            return generate
        lines = (outline_line(node.number, node.title) for node in plan.request.script)
        script = self.tokenizer.text("".join(lines))
        return replace(generate, script=script, max_tokens=len(script) + 1)

    async def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent, None]:
        """Decode a plan; the nodes are the script's own, with their budgets."""
        async with aclosing(super().plan(request)) as events:
            async for event in events:
                if request.script and isinstance(event, PlanLine):
                    event = replace(event, node=request.script[event.node.number - 1])
                yield event
