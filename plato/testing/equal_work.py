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
from plato.planning.rules import START, Characters, Repeat, Rule, gbnf, lark, sequence
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
        script = self.tokenizer.text(_outline(plan.request))
        return replace(generate, script=script, max_tokens=len(script) + 1)

    async def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent, None]:
        """Decode a plan; the nodes are the script's own, with their budgets."""
        async with aclosing(super().plan(request)) as events:
            async for event in events:
                if request.script and isinstance(event, PlanLine):
                    event = replace(event, node=request.script[event.node.number - 1])
                yield event


class SpelledPlanner(ScriptedPlanner):
    """For engines without scripts: the grammar has no other outline than that of the script.

    The model chooses only how to spell it in tokens, each in one step where the engine forces none.
    """

    def grammar(self, request: PlanRequest) -> Grammar:
        """The script alone."""
        if not request.script:
            return super().grammar(request)
        rules = {START: sequence(_outline(request))}
        return Grammar(lark=lark(rules), gbnf=gbnf(rules))

    def generate_request(self, plan: PlanContext, form: PlanForm) -> GenerateRequest:
        """The request that decodes the plan under that grammar."""
        return ModelPlanner.generate_request(self, plan, form)


def _outline(request: PlanRequest) -> str:
    """The outline of a script."""
    return "".join(outline_line(node.number, node.title) for node in request.script)
