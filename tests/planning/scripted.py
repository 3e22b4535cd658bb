"""A pool that plays a script to a planner: faults and orders of events that no model can be made to
produce, over the text and tokens that a real tokenizer gives."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from functools import cache
from typing import Any

from plato.engine import Chunk, FinishReason, GenerateRequest
from plato.models.calibration import Calibration
from plato.planning.grammar import outline_line
from plato.planning.planner import ModelPlanner
from plato.planning.protocol import PlanEnded, PlanEvent, PlanLine, Planner, PlanRequest
from plato.prompting import ChatTemplate, Tokenizer
from plato.runs import Message, Node

NODES = (Node(1, "Solar"), Node(2, "Wind"), Node(3, "Choice", (1, 2)))
LINES = tuple(outline_line(node.number, node.title) for node in NODES)
NEEDS = {2: (-0.1, -3.0), 3: (-3.0, -2.0, -2.5)}
"""Log probabilities of no part and of each one before, by part: those of `NODES`."""
SPLIT = (math.log(0.1), math.log(0.9))
"""Of `[ONE]` and of a plan."""

Answer = Sequence[float] | Exception | None
Step = str | Exception | None


class Script:
    """A pool that replays texts, one chunk each, and answers decisions.

    `None` waits for ever; a decision without an answer is dropped.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *texts: Step,
        finish: FinishReason = FinishReason.STOP,
        split: Answer = SPLIT,
        needs: dict[int, Answer] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._texts = texts
        self._finish = finish
        self._answers: dict[int, Answer] = {-1: split}
        self._answers |= {-part: answer for part, answer in (needs or NEEDS).items()}
        self.requests: list[GenerateRequest] = []
        self.decisions: list[tuple[GenerateRequest, tuple[str, ...]]] = []
        """Requests, and where they are to be decided."""
        self.sent = 0
        self.waits = asyncio.Event()
        self.open = 0
        """Streams that are not closed, of plans and of decisions."""

    @property
    def closed(self) -> bool:
        """Whether everything that was asked for is over."""
        return bool(self.requests) and not self.open

    async def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        self.open += 1
        if request.score:
            self.decisions.append((request, ranked))
        else:
            self.requests.append(request)
        try:
            yield self._chunk(request, 0, "", cached_tokens=300)
            replies = self._decide(request) if request.score else self._plan(request)
            async for chunk in replies:
                yield chunk
        finally:
            self.open -= 1

    async def _decide(self, request: GenerateRequest) -> AsyncGenerator[Chunk]:
        if request.node not in self._answers:
            yield self._chunk(request, 0, "", finish=FinishReason.CANCELLED)
            return
        answer = self._answers[request.node]
        if answer is None:
            self.waits.set()
            await asyncio.Event().wait()
        elif isinstance(answer, Exception):
            raise answer
        else:
            assert len(answer) == len(request.score)
            yield self._chunk(request, 0, "1", finish=FinishReason.LENGTH, scores=tuple(answer))

    async def _plan(self, request: GenerateRequest) -> AsyncGenerator[Chunk]:
        offset = len(request.emitted)
        for place, text in enumerate(self._texts):
            if isinstance(text, Exception):
                raise text
            if text is None:
                self.waits.set()
                await asyncio.Event().wait()
                continue
            last = place == len(self._texts) - 1
            chunk = self._chunk(request, offset, text, finish=self._finish if last else None)
            self.sent += 1
            yield chunk
            offset += len(chunk.tokens)

    def _chunk(self, request: GenerateRequest, offset: int, text: str, **fields: Any) -> Chunk:
        tokens = self._tokenizer.text(text)
        return Chunk(
            run_id=request.run_id,
            node=request.node,
            attempt=request.attempt,
            offset=offset or (0 if request.score else len(request.emitted)),
            tokens=tokens,
            text=text,
            prompt_tokens=350,
            replica="r1",
            epoch="e1",
            steps=(offset + len(tokens)) // 2,
            **fields,
        )


class _Stage:
    """The pool of a planner that plays one script after another: building a planner takes time."""

    script: Script

    def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        return self.script.generate(request, ranked)


@cache
def _on_stage(tokenizer: Tokenizer, template: ChatTemplate) -> tuple[_Stage, ModelPlanner]:
    stage = _Stage()
    return stage, ModelPlanner(
        stage,
        tokenizer,
        template,
        max_title_words=12,
        calibration=Calibration(split_threshold=0.25, dependency_threshold=0.0),
    )


def planner(script: Script, tokenizer: Tokenizer, template: ChatTemplate) -> ModelPlanner:
    stage, planner = _on_stage(tokenizer, template)
    stage.script = script
    return planner


def ask(*, decide: bool = False, **fields: Any) -> PlanRequest:
    return PlanRequest(
        run_id="run",
        tenant="tenant",
        messages=(Message("user", "Solar or wind?"),),
        decide=decide,
        **{"parts": 6, "deadline_s": 5.0, **fields},
    )


async def events_of(planner: Planner, request: PlanRequest) -> list[PlanEvent]:
    return [event async for event in planner.plan(request)]


def ended(events: Sequence[PlanEvent]) -> PlanEnded:
    assert isinstance(events[-1], PlanEnded)
    return events[-1]


def nodes_of(events: Sequence[PlanEvent]) -> tuple[Node, ...]:
    return tuple(event.node for event in events if isinstance(event, PlanLine))
