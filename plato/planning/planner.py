"""The planner: has the model write a plan, and streams its nodes.

The model writes titles, one line each. While it writes the next one, it decides in one step which
of the earlier parts a part needs; whether to split the answer at all is decided while it writes the
first. So a line is known as soon as its title is, and decisions are calibrated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from plato.engine import (
    Chunk,
    DecoderPool,
    FinishReason,
    GenerateRequest,
    Grammar,
    RequestRefusedError,
    SamplingParams,
    without_unfinished,
)
from plato.errors import UnavailableError
from plato.models.calibration import Calibration
from plato.planning import wording
from plato.planning.decider import Decider, PlanContext
from plato.planning.decision import DependencyDecision, SplitDecision
from plato.planning.grammar import TITLE_END, outline_grammar, outline_token_budget
from plato.planning.parser import title_problem
from plato.planning.progress import PlanProgress
from plato.planning.prompt import PlanningPrompts, shown_question
from plato.planning.protocol import (
    PlanEvent,
    PlanLine,
    PlanRequest,
    PlanStarted,
)
from plato.planning.readers import Draft, PlanForm, json_plan
from plato.planning.titles import refusal, title_of_words
from plato.planning.vocabulary import structure_tokens
from plato.prompting import ChatTemplate, Tokenizer
from plato.runs import Node, chars_of
from plato.settings import MAX_TITLE_CHARS
from plato.tasks import end_task, in_thread_if_long

PLAN_NODE = 0
"""Node number of the plan itself; the nodes of a run are numbered from 1."""
PLAN_PRIORITY = 100
"""Above that of nodes, which its lines start."""
REPETITION_PENALTY = 1.2
"""Keeps the titles of a plan distinct; tokens of the outline's structure are exempt."""
TITLE_END_BIAS = 2.0
"""Log odds for the end of a title: small models turn titles into sentences. Degenerate plans for 80
questions and 60 tasks: 4 % at 0, 3 % at 1, 0.7 % at 2 and 3."""
GROUP_S = 0.1
"""Tokens are grouped over this time; the end of a line, which starts a node, is sent at once."""


class ModelPlanner:
    """Plans with the model that also answers, under the grammar of outlines.

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
        calibration: Calibration | None = None,
        fingerprint: str = "",
    ) -> None:
        """Prepare the prompts and token sets; takes about a second.

        Args:
            pool: decodes the plans.
            tokenizer: of the model that `pool` runs.
            template: its chat template.
            max_title_words: maximum length of a title.
            calibration: of the model's decisions; by default that of a model that is not tuned.
            fingerprint: of the model.
        """
        self._pool = pool
        self.tokenizer = tokenizer
        self.calibration = calibration = calibration or Calibration()
        prompts = PlanningPrompts.of(
            tokenizer, template, fingerprint, examples=calibration.examples
        )
        self._outline_prompt = prompts.outline
        self.decider = Decider(
            pool,
            (SplitDecision(tokenizer, calibration), prompts.split),
            (DependencyDecision(tokenizer, calibration), prompts.dependencies),
        )
        self._max_title_words = max_title_words
        # In some vocabularies the newline is part of the token that ends a title.
        ends = {tokenizer.text(text)[0] for text in (TITLE_END, f"{TITLE_END}\n")}
        self._sampling = SamplingParams(
            repetition_penalty=REPETITION_PENALTY,
            penalty_exempt=structure_tokens(tokenizer),
            logit_bias=tuple((token, TITLE_END_BIAS) for token in sorted(ends)),
        )

    async def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent, None]:
        """Decode a plan; see `Planner.plan`.

        Errors of the pool propagate; raises `UnavailableError` if the decoder drops the plan. A
        plan that exceeds its deadline or budget, or contains a line that is refused, ends with the
        lines before that and a reason.
        """
        deadline = asyncio.get_running_loop().time() + request.deadline_s
        question = await in_thread_if_long(
            chars_of(request.messages), shown_question, self.tokenizer, request.messages
        )
        for form in PlanForm:
            progress = PlanProgress(request.emitted, form.reader(request.parts), self.refusal)
            plan = PlanContext(request, question, progress.spend)
            stream = self._pool.generate(self.generate_request(plan, form))
            try:
                async with (
                    aclosing(stream),
                    aclosing(self._follow(plan, stream, progress, deadline)) as events,
                ):
                    async for event in events:
                        yield event
            except RequestRefusedError as error:
                # Nothing is sent yet. A plan is resumed in the form in which it was begun.
                if error.param != "grammar" or request.emitted or form is PlanForm.LINES:
                    raise
            else:
                yield progress.summary()
                return

    async def _follow(
        self,
        plan: PlanContext,
        stream: AsyncGenerator[Chunk],
        progress: PlanProgress,
        deadline: float,
    ) -> AsyncGenerator[PlanEvent, None]:
        """The events of `stream`, up to the plan's end or the deadline."""
        request = plan.request
        # The engine resumes after the last complete character.
        begun = without_unfinished(self.tokenizer.decode(request.emitted))
        deciding: asyncio.Task[tuple[float, bool]] | None = None
        started = False
        try:
            while not progress.over:
                # Not around the whole loop: while this generator is suspended in a `yield`, the
                # timeout would cancel the consumer's await.
                events: list[PlanEvent] = []
                try:
                    async with asyncio.timeout_at(deadline) as timer:
                        if deciding is not None:
                            await self._settle(deciding, progress)
                            deciding = None
                            if progress.over:
                                break
                        chunk = await self._chunk(stream, progress)
                        text = chunk.text
                        if not started:
                            plan = replace(plan, replica=chunk.replica)
                            events.append(PlanStarted(chunk.replica, chunk.epoch))
                            text = begun + text
                            if request.decide and not request.known:
                                deciding = asyncio.create_task(self.decider.split(plan))
                        drafts = progress.take(chunk, text)
                        if drafts and deciding is not None:
                            # The first chunk already has a line, which would commit to the plan.
                            drafts = drafts if await self._settle(deciding, progress) else []
                            deciding = None
                        for draft in drafts:
                            line = await self._line(plan, draft, progress)
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

    async def _settle(
        self, deciding: asyncio.Task[tuple[float, bool]], progress: PlanProgress
    ) -> bool:
        """Wait for the split decision; whether the answer is split."""
        try:
            probability, split = await deciding
        except RequestRefusedError as error:
            progress.decide(None, split=False, reason=str(error))
            return False
        progress.decide(probability, split=split)
        return split

    async def _chunk(self, stream: AsyncGenerator[Chunk], progress: PlanProgress) -> Chunk:
        """The next chunk of the plan."""
        chunk = await anext(stream, None)
        if chunk is None or chunk.finish is FinishReason.CANCELLED:
            raise UnavailableError("the decoder dropped the plan")
        if chunk.offset != len(progress.emitted):
            raise UnavailableError("tokens of the plan are missing")
        return chunk

    async def _line(self, plan: PlanContext, draft: Draft, progress: PlanProgress) -> PlanLine:
        """The line of the next node, with its dependencies."""
        earlier = progress.nodes
        if len(earlier) < len(plan.request.known):
            node = plan.request.known[len(earlier)]
        else:
            needed: tuple[int, ...] = ()
            if plan.request.dependencies:
                needed = draft.needs or ()
                if draft.needs is None:
                    needed = await self.decider.dependencies(plan, earlier, draft.title)
            node = Node(len(earlier) + 1, draft.title, needed)
        progress.add(node)
        return PlanLine(node, progress.usage(), progress.emitted)

    def refusal(self, title: str, earlier: Sequence[str]) -> str | None:
        """Why a title is not taken; see `plato.planning.titles.refusal`."""
        problem = title_problem(title, MAX_TITLE_CHARS)
        return problem or refusal(title, earlier, self._max_title_words)

    def grammar(self, request: PlanRequest) -> Grammar:
        """The grammar of the titles."""
        return outline_grammar(request.parts, title_of_words(self._max_title_words + 1))

    def generate_request(self, plan: PlanContext, form: PlanForm) -> GenerateRequest:
        """The engine request that decodes the plan."""
        request = plan.request
        # Penalties and biases are for the tokens of an outline.
        sampling, grammar = SamplingParams(), None
        match form:
            case PlanForm.OUTLINE:
                ask, sampling = wording.points(request.parts), self._sampling
                grammar = self.grammar(request)
            case PlanForm.JSON:
                ask = wording.json_parts(request.parts)
                grammar = Grammar(lark="", json_schema=json_plan(request.parts))
            case PlanForm.LINES:
                ask = wording.lines(request.parts)
        return GenerateRequest(
            run_id=request.run_id,
            node=PLAN_NODE,
            prompt=self._outline_prompt.build(plan.question, request.tenant, ask=ask),
            max_tokens=outline_token_budget(request.parts, self._max_title_words),
            sampling=sampling,
            grammar=grammar,
            run_began_unix_s=request.run_began_unix_s,
            priority=PLAN_PRIORITY,
            branch=request.branch,
            lease=request.lease,
            group_s=GROUP_S,
            attempt=request.attempt,
            emitted=request.emitted,
        )
