"""The planner: has the model write a plan, and streams its nodes.

The model writes titles, one line each. While it writes the next one, it decides in one step which
of the earlier parts a part needs; whether to split the answer at all is decided while it writes the
first. So a line is known as soon as its title is, and decisions are calibrated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from plato.engine import (
    Chunk,
    DecoderPool,
    FinishReason,
    GenerateRequest,
    Prompt,
    SamplingParams,
    without_unfinished,
)
from plato.errors import InvalidPlanError, UnavailableError
from plato.planning import wording
from plato.planning.decision import (
    DependencyDecision,
    SplitDecision,
    dependency_answer,
    dependency_line,
)
from plato.planning.grammar import TITLES, plan_grammar, plan_token_budget
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
from plato.planning.titles import refusal, title_of_words
from plato.planning.vocabulary import structure_tokens
from plato.prompting import ChatTemplate, Tokenizer
from plato.runs import Node, chars_of
from plato.tasks import end_task, in_thread_if_long

PLAN_NODE = 0
"""Node number of the plan itself; the nodes of a run are numbered from 1."""
SPLIT_NODE = -1
"""Node number of the split decision. That on the dependencies of node n is -n: the first has none.
"""
REPETITION_PENALTY = 1.2
"""Keeps the titles of a plan distinct; tokens of the plan's structure are exempt."""

FIRST = 1000
"""Priority of decisions: parts wait for them, and they take one step."""
GROUP_S = 0.1
"""Tokens are grouped over this time; the end of a line, which starts a node, is sent at once."""


def planning_prompts(
    tokenizer: Tokenizer, template: ChatTemplate, fingerprint: str
) -> tuple[PlanningPrompt, PlanningPrompt, PlanningPrompt]:
    """The prompts for plans, split decisions and dependencies."""
    plan, split, dependencies = (
        PlanningPrompt(asks, tokenizer, template, fingerprint)
        for asks in (wording.PLAN, wording.SPLIT, wording.DEPENDENCIES)
    )
    return plan, split, dependencies


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
        max_title_words: int,
        split_threshold: float,
        dependency_threshold: float,
        fingerprint: str = "",
    ) -> None:
        """Prepare the prompts and token sets; takes about a second.

        Args:
            pool: decodes the plans.
            tokenizer: of the model that `pool` runs.
            template: its chat template.
            max_title_words: maximum length of a title.
            split_threshold: see `SplitDecision`.
            dependency_threshold: see `DependencyDecision`.
            fingerprint: of the model.
        """
        self._pool = pool
        self.tokenizer = tokenizer
        prompts = planning_prompts(tokenizer, template, fingerprint)
        self._plan_prompt, self._split_prompt, self._dependency_prompt = prompts
        self._split = SplitDecision(tokenizer, split_threshold)
        self._dependencies = DependencyDecision(tokenizer, dependency_threshold)
        self._structure = structure_tokens(tokenizer, TITLES)
        self._max_title_words = max_title_words

    async def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent, None]:
        """Decode a plan; see `Planner.plan`.

        Errors of the pool propagate; raises `UnavailableError` if the decoder drops the plan. A
        plan that exceeds its deadline or budget, or contains a line that is refused, ends with the
        lines before that and a reason.
        """
        # The engine resumes after the last complete character.
        begun = without_unfinished(self.tokenizer.decode(request.emitted))
        progress = _Progress(request)
        deadline = asyncio.get_running_loop().time() + request.deadline_s
        generate = await in_thread_if_long(
            chars_of(request.messages), self.generate_request, request
        )
        async with (
            aclosing(self._pool.generate(generate)) as stream,
            aclosing(self._follow(request, stream, progress, begun, deadline)) as events,
        ):
            async for event in events:
                yield event
        yield progress.summary()

    async def _follow(
        self,
        request: PlanRequest,
        stream: AsyncGenerator[Chunk],
        progress: _Progress,
        begun: str,
        deadline: float,
    ) -> AsyncGenerator[PlanEvent, None]:
        """The events of `stream`, up to the plan's end or the deadline."""
        deciding: asyncio.Task[float] | None = None
        started = False
        try:
            while not progress.over:
                # Not around the whole loop: while this generator is suspended in a `yield`, the
                # timeout would cancel the consumer's await.
                events: list[PlanEvent] = []
                try:
                    async with asyncio.timeout_at(deadline) as timer:
                        if deciding is not None:
                            progress.decide(await deciding, self._split)
                            deciding = None
                            if progress.over:
                                break
                        chunk = await self._chunk(stream, progress)
                        text = chunk.text
                        if not started:
                            events.append(PlanStarted(chunk.replica, chunk.epoch))
                            text = begun + text
                            if request.decide and not request.known:
                                deciding = asyncio.create_task(
                                    self._one_probability(request, chunk.replica, progress.spend)
                                )
                        for node in progress.take(chunk, text, self.refusal):
                            line = await self._line(request, node, progress, chunk.replica)
                            events.append(line)
                except TimeoutError:
                    if not timer.expired():
                        raise
                    progress.stop(f"the plan exceeded its deadline of {request.deadline_s:g} s")
                started = True
                for event in events:
                    yield event
        finally:
            if deciding is not None:
                await end_task(deciding)

    async def _chunk(self, stream: AsyncGenerator[Chunk], progress: _Progress) -> Chunk:
        """The next chunk of the plan."""
        chunk = await anext(stream, None)
        if chunk is None or chunk.finish is FinishReason.CANCELLED:
            raise UnavailableError("the decoder dropped the plan")
        if chunk.offset != len(progress.emitted):
            raise UnavailableError("tokens of the plan are missing")
        return chunk

    async def _line(
        self, request: PlanRequest, node: Node, progress: _Progress, replica: str
    ) -> PlanLine:
        """The line of `node`, with its dependencies."""
        if node.number <= len(request.known):
            node = request.known[node.number - 1]
        else:
            earlier = tuple(progress.nodes)
            needed = await self.dependencies(request, earlier, node.title, replica, progress.spend)
            node = replace(node, dependencies=needed)
        progress.nodes.append(node)
        return PlanLine(node, progress.usage(), progress.emitted)

    async def dependencies(
        self,
        request: PlanRequest,
        nodes: Sequence[Node],
        title: str,
        replica: str = "",
        spend: Callable[[Chunk], None] = lambda _: None,
    ) -> tuple[int, ...]:
        """Numbers of the earlier `nodes` that the next part of a plan, with this title, needs.

        Decided at `replica`, if there is one: the scheduler renews its lease there. `spend` gets
        the chunk with the decision.
        """
        number = len(nodes) + 1
        if not nodes or number > self._dependencies.parts:
            return ()
        lines = [
            dependency_line(node.number, node.title) + dependency_answer(node.dependencies)
            for node in nodes
        ]
        lines.append(dependency_line(number, title))
        prompt = await in_thread_if_long(
            chars_of(request.messages),
            self._dependency_prompt.build,
            request.messages,
            request.tenant,
            lines,
        )
        tokens = self._dependencies.candidates(len(nodes))
        return self._dependencies.choose(
            await self._scores(request, -number, prompt, tokens, spend, replica)
        )

    async def _one_probability(
        self, request: PlanRequest, replica: str, spend: Callable[[Chunk], None]
    ) -> float:
        prompt = await in_thread_if_long(
            chars_of(request.messages), self._split_prompt.build, request.messages, request.tenant
        )
        return self._split.probability(
            await self._scores(request, SPLIT_NODE, prompt, self._split.candidates, spend, replica)
        )

    async def _scores(
        self,
        request: PlanRequest,
        node: int,
        prompt: Prompt,
        tokens: tuple[int, ...],
        spend: Callable[[Chunk], None],
        replica: str = "",
    ) -> tuple[float, ...]:
        """Log probabilities of `tokens` after `prompt`."""
        generate = GenerateRequest(
            run_id=request.run_id,
            node=node,
            prompt=prompt,
            max_tokens=1,
            run_began_unix_s=request.run_began_unix_s,
            priority=FIRST,
            lease=request.lease,
            attempt=request.attempt,
            score=tokens,
        )
        cached = 0
        async with aclosing(self._pool.generate(generate, (replica,) if replica else ())) as stream:
            async for chunk in stream:
                cached = max(cached, chunk.cached_tokens)
                if chunk.scores:
                    spend(replace(chunk, cached_tokens=cached))
                    return chunk.scores
        raise UnavailableError("the decoder dropped a decision of the plan")

    def refusal(self, title: str, earlier: Sequence[str]) -> str | None:
        """Why a title is not taken; see `plato.planning.titles.refusal`."""
        return refusal(title, earlier, self._max_title_words)

    def grammar(self, request: PlanRequest) -> str:
        """The grammar of the titles."""
        return plan_grammar(request.max_nodes, title_of_words(self._max_title_words))

    def generate_request(self, request: PlanRequest) -> GenerateRequest:
        """The engine request that decodes the titles."""
        return GenerateRequest(
            run_id=request.run_id,
            node=PLAN_NODE,
            prompt=self._plan_prompt.build(request.messages, request.tenant),
            max_tokens=plan_token_budget(request.max_nodes, self._max_title_words),
            sampling=SamplingParams(
                repetition_penalty=REPETITION_PENALTY, penalty_exempt=self._structure
            ),
            grammar=self.grammar(request),
            run_began_unix_s=request.run_began_unix_s,
            lease=request.lease,
            group_s=GROUP_S,
            attempt=request.attempt,
            emitted=request.emitted,
        )


class _Progress:
    """Progress of one plan."""

    def __init__(self, request: PlanRequest) -> None:
        self._parser = PlanParser(max_nodes=request.max_nodes, fields=TITLES)
        self._emitted = list(request.emitted)
        self._titles: list[str] = []
        self._read = 0
        self._probability: float | None = None
        self._split = True
        self._tokens = self._steps = self._prompt_tokens = self._cached_tokens = 0
        self._spent = PlanUsage()
        """Of the decisions."""
        self._reason: str | None = None
        self._refused: str | None = None
        self.nodes: list[Node] = []
        """Those that were sent, with their dependencies."""
        self.over = False
        """Whether the rest of the stream can be ignored."""

    def spend(self, decision: Chunk) -> None:
        """Count a decision, too."""
        spent = self._spent
        self._spent = replace(
            spent,
            tokens=spent.tokens + 1,
            steps=spent.steps + 1,
            prompt_tokens=spent.prompt_tokens + decision.prompt_tokens,
            cached_tokens=spent.cached_tokens + decision.cached_tokens,
        )

    def stop(self, reason: str | None) -> None:
        """End the plan here."""
        self.over, self._reason = True, reason

    def decide(self, probability: float, decision: SplitDecision) -> None:
        """Take the split decision; if the answer is not split, the plan ends here."""
        self._probability = probability
        self._split = decision.splits(probability)
        if not self._split:
            self.stop(None)

    @property
    def emitted(self) -> tuple[int, ...]:
        """Output tokens so far."""
        return tuple(self._emitted)

    def take(
        self, chunk: Chunk, text: str, refusal: Callable[[str, Sequence[str]], str | None]
    ) -> list[Node]:
        """Add `chunk` with its `text`; returns the nodes of the lines it completed.

        A title that `refusal` objects to ends the plan, like `[END]`: small models loop when they
        run out of topics.
        """
        if self.over:
            return []
        self._emitted.extend(chunk.tokens)
        self._tokens = chunk.offset + len(chunk.tokens)
        self._steps = max(self._steps, chunk.steps)
        self._prompt_tokens = max(self._prompt_tokens, chunk.prompt_tokens)
        self._cached_tokens = max(self._cached_tokens, chunk.cached_tokens)
        try:
            self._parser.feed(text)
        except InvalidPlanError as error:
            self.stop(error.message)
        else:
            if self._parser.ended:
                self.stop(None)
            elif chunk.finish is not None:
                self.stop(_EARLY[chunk.finish])
        new: list[Node] = []
        for node in self._parser.nodes[self._read :]:
            why = refusal(node.title, self._titles)
            if why is not None:
                self._refused = node.title
                self.stop(f"the plan ended before its line {node.number}, {node.title!r} ({why})")
                break
            self._titles.append(node.title)
            new.append(node)
        self._read = len(self._parser.nodes)
        return new

    def usage(self) -> PlanUsage:
        """Resources used by the plan so far, with its decisions."""
        spent = self._spent
        return PlanUsage(
            tokens=self._tokens + spent.tokens,
            steps=self._steps + spent.steps,
            prompt_tokens=self._prompt_tokens + spent.prompt_tokens,
            cached_tokens=self._cached_tokens + spent.cached_tokens,
            one_probability=self._probability,
        )

    def summary(self) -> PlanEnded:
        """The last event of the plan."""
        return PlanEnded(self._split, self.usage(), reason=self._reason, refused=self._refused)


_EARLY = {
    FinishReason.STOP: "the plan stopped before its end",
    FinishReason.LENGTH: "the plan used up its token budget",
}
