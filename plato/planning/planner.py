"""The planner: has the model write a plan, and streams its nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from plato.engine import (
    Chunk,
    DecoderPool,
    FinishReason,
    GenerateRequest,
    SamplingParams,
    without_unfinished,
)
from plato.errors import InvalidPlanError, UnavailableError
from plato.planning.decision import SplitDecision
from plato.planning.grammar import DEPENDENCIES_FIRST, plan_grammar, plan_token_budget
from plato.planning.parser import PlanParser
from plato.planning.prompt import PlanningPrompt
from plato.planning.protocol import (
    PlanEnded,
    PlanEvent,
    PlanLine,
    PlanRequest,
    PlanStarted,
    PlanUsage,
)
from plato.planning.vocabulary import structure_tokens
from plato.prompting import ChatTemplate, Tokenizer
from plato.runs import Node, chars_of
from plato.tasks import in_thread_if_long

FIELDS = DEPENDENCIES_FIRST
"""Fields of a line that is decoded."""
PLAN_NODE = 0
"""Node number of the plan itself; the nodes of a run are numbered from 1."""
REPETITION_PENALTY = 1.2
"""Keeps the titles of a plan distinct; tokens of the plan's structure are exempt."""

GROUP_S = 0.1
"""Tokens are grouped over this time; the end of a line, which starts a node, is sent at once."""


class ModelPlanner:
    """Plans with the model that also answers, under the grammar of the plan language.

    Implements `plato.planning.protocol.Planner`. It keeps no state between requests, so one planner
    serves any number of concurrent runs.
    """

    def __init__(
        self,
        pool: DecoderPool,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        *,
        max_title_chars: int,
        split_threshold: float,
        fingerprint: str = "",
    ) -> None:
        """Prepare the prompt and token sets; takes about a second.

        Args:
            pool: decodes the plans.
            tokenizer: of the model that `pool` runs.
            template: its chat template.
            max_title_chars: maximum length of a title.
            split_threshold: if the model may decide, it splits unless its probability of `[ONE]`
                is above this.
            fingerprint: of the model.
        """
        self._pool = pool
        self.tokenizer = tokenizer
        self._prompt = PlanningPrompt(tokenizer, template, fingerprint)
        self._decision = SplitDecision(tokenizer, split_threshold)
        self._structure = structure_tokens(tokenizer, FIELDS)
        self._max_title_chars = max_title_chars

    async def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent, None]:
        """Decode a plan; see `Planner.plan`.

        Errors of the pool propagate; raises `UnavailableError` if the decoder drops the plan. A
        plan that exceeds its deadline or budget, or contains an error, ends with the lines before
        that and a reason.
        """
        progress = _Progress(request, self._decision, self.longest_title(request))
        # The engine resumes after the last complete character.
        begun = without_unfinished(self.tokenizer.decode(request.emitted))
        deadline = asyncio.get_running_loop().time() + request.deadline_s
        generate = await in_thread_if_long(
            chars_of(request.messages), self.generate_request, request
        )
        stream = self._pool.generate(generate)
        started = False
        async with aclosing(stream):
            while not progress.over:
                # Not around the whole loop: while this generator is suspended in a `yield`, the
                # timeout would cancel the consumer's await.
                try:
                    async with asyncio.timeout_at(deadline) as timer:
                        chunk = await anext(stream, None)
                except TimeoutError:
                    if not timer.expired():
                        raise
                    progress.stop(f"the plan exceeded its deadline of {request.deadline_s:g} s")
                    break
                if chunk is None or chunk.finish is FinishReason.CANCELLED:
                    raise UnavailableError("the decoder dropped the plan")
                if chunk.offset != len(progress.emitted):
                    raise UnavailableError("tokens of the plan are missing")
                text = chunk.text
                if not started:
                    started = True
                    yield PlanStarted(chunk.replica, chunk.epoch)
                    text = begun + text
                for node in progress.take(chunk, text):
                    yield PlanLine(node, progress.usage(), progress.emitted)
        yield progress.summary()

    def longest_title(self, request: PlanRequest) -> int:
        """Maximum length of a title in this plan."""
        return self._max_title_chars

    def generate_request(self, request: PlanRequest) -> GenerateRequest:
        """The engine request that decodes the plan."""
        max_title_chars = self.longest_title(request)
        return GenerateRequest(
            run_id=request.run_id,
            node=PLAN_NODE,
            prompt=self._prompt.build(request.messages, request.tenant),
            max_tokens=plan_token_budget(request.max_nodes, max_title_chars),
            sampling=SamplingParams(
                repetition_penalty=REPETITION_PENALTY,
                penalty_exempt=self._structure,
                first_token_bias=self._decision.bias if request.decide else (),
            ),
            grammar=plan_grammar(
                request.max_nodes,
                fields=FIELDS,
                max_title_chars=max_title_chars,
                allow_one=request.decide,
            ),
            run_began_unix_s=request.run_began_unix_s,
            lease=request.lease,
            group_s=GROUP_S,
            attempt=request.attempt,
            emitted=request.emitted,
            report_first=8 if request.decide else 0,
        )


class _Progress:
    """Progress of one plan."""

    def __init__(self, request: PlanRequest, decision: SplitDecision, max_title_chars: int) -> None:
        self._decision = decision if request.decide else None
        self._parser = PlanParser(
            max_nodes=request.max_nodes, max_title_chars=max_title_chars, fields=FIELDS
        )
        self._emitted = list(request.emitted)
        self._sent = 0
        self._titles: set[str] = set()
        self._probability: float | None = None
        self._tokens = self._steps = self._prompt_tokens = self._cached_tokens = 0
        self._reason: str | None = None
        self.over = False
        """Whether the rest of the stream can be ignored."""

    def stop(self, reason: str | None) -> None:
        """End the plan here."""
        self.over, self._reason = True, reason

    @property
    def emitted(self) -> tuple[int, ...]:
        """Output tokens so far."""
        return tuple(self._emitted)

    def take(self, chunk: Chunk, text: str) -> list[Node]:
        """Add `chunk` with its `text`; returns the nodes of the lines it completed."""
        self._emitted.extend(chunk.tokens)
        self._tokens = chunk.offset + len(chunk.tokens)
        self._steps = max(self._steps, chunk.steps)
        self._prompt_tokens = max(self._prompt_tokens, chunk.prompt_tokens)
        self._cached_tokens = max(self._cached_tokens, chunk.cached_tokens)
        if self._decision is not None and chunk.first:
            self._probability = self._decision.probability(dict(chunk.first))
        try:
            self._parser.feed(text)
        except InvalidPlanError as error:
            self.stop(error.message)
        else:
            if self._parser.ended:
                self.stop(None)
            elif chunk.finish is not None:
                self.stop(_EARLY[chunk.finish])
        return self._new_nodes()

    def _new_nodes(self) -> list[Node]:
        """Nodes that were not returned yet.

        A repeated title ends the plan, like `[END]`: small models loop when they run out of topics.
        """
        new: list[Node] = []
        for node in self._parser.nodes[self._sent :]:
            title = node.title.casefold()
            if title in self._titles:
                self.stop(None)
                break
            self._titles.add(title)
            new.append(node)
        self._sent += len(new)
        return new

    def usage(self) -> PlanUsage:
        """Resources used by the plan so far."""
        return PlanUsage(
            tokens=self._tokens,
            steps=self._steps,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            one_probability=self._probability,
        )

    def summary(self) -> PlanEnded:
        """The last event of the plan."""
        return PlanEnded(
            split=not self._parser.one,
            tokens=self._tokens,
            steps=self._steps,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            one_probability=self._probability,
            reason=self._reason,
        )


_EARLY = {
    FinishReason.STOP: "the plan stopped before its end",
    FinishReason.LENGTH: "the plan used up its token budget",
}
