"""Takes the decisions of plans: requests of one token to the decoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from plato.engine import (
    Chunk,
    DecoderPool,
    GenerateRequest,
    Prompt,
    RequestRefusedError,
    Segment,
)
from plato.errors import UnavailableError
from plato.planning.decision import DependencyDecision, SplitDecision, dependency_lines
from plato.planning.prompt import PlanningPrompt
from plato.planning.protocol import PlanRequest
from plato.runs import Node

SPLIT_NODE = -1
"""Node number of the split decision. That on the dependencies of node n is -n: the first has none.
"""
DECISION_PRIORITY = 1000
"""Parts wait for decisions, and they take one step."""


@dataclass(frozen=True, slots=True)
class PlanContext:
    """The plan that decisions are for."""

    request: PlanRequest
    question: Segment
    """See `shown_question`."""
    spend: Callable[[Chunk], None] = lambda _: None
    """Gets the chunk of each decision."""
    replica: str = ""
    """Where the plan is decoded, and where the scheduler renews its lease."""


class Decider:
    """Asks the model for the decisions of `plato.planning.decision`.

    Errors of the pool propagate; raises `UnavailableError` if the decoder drops a decision.
    """

    def __init__(
        self,
        pool: DecoderPool,
        split: tuple[SplitDecision, PlanningPrompt],
        dependencies: tuple[DependencyDecision, PlanningPrompt],
    ) -> None:
        self._pool = pool
        self._split, self._split_prompt = split
        self._dependencies, self._dependency_prompt = dependencies

    async def split(self, plan: PlanContext) -> tuple[float, bool]:
        """The probability of `[ONE]`, and whether the answer is split."""
        prompt = self._split_prompt.build(plan.question, plan.request.tenant)
        scores = await self._scores(plan, SPLIT_NODE, prompt, self._split.candidates)
        probability = self._split.probability(scores)
        return probability, self._split.splits(probability)

    async def dependencies(
        self, plan: PlanContext, nodes: Sequence[Node], title: str
    ) -> tuple[int, ...]:
        """Numbers of the earlier `nodes` that the next part of a plan, with this title, needs."""
        number = len(nodes) + 1
        if not nodes or number > self._dependencies.parts:
            return ()
        lines = dependency_lines(nodes, title)
        prompt = self._dependency_prompt.build(plan.question, plan.request.tenant, lines=lines)
        candidates = self._dependencies.candidates(len(nodes))
        try:
            scores = await self._scores(plan, -number, prompt, candidates)
        except RequestRefusedError:
            # The engine has none, or not within an answer; the split decision reports that.
            return ()
        return self._dependencies.choose(scores)

    async def _scores(
        self, plan: PlanContext, node: int, prompt: Prompt, tokens: tuple[int, ...]
    ) -> tuple[float, ...]:
        """Log probabilities of `tokens` after `prompt`."""
        request = plan.request
        generate = GenerateRequest(
            run_id=request.run_id,
            node=node,
            prompt=prompt,
            max_tokens=1,
            run_began_unix_s=request.run_began_unix_s,
            priority=DECISION_PRIORITY,
            branch=request.branch,
            lease=request.lease,
            attempt=request.attempt,
            score=tokens,
        )
        preferred = (plan.replica,) if plan.replica else ()
        cached = 0
        async with aclosing(self._pool.generate(generate, preferred)) as stream:
            async for chunk in stream:
                cached = max(cached, chunk.cached_tokens)
                if chunk.scores:
                    plan.spend(replace(chunk, cached_tokens=cached))
                    return chunk.scores
        raise UnavailableError("the decoder dropped a decision of the plan")
