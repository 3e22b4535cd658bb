"""Variants without one part of Plato."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from benchmarks.answering.variants import FlatPriority, WholePlan
from plato.engine import Chunk, GenerateRequest, Prompt, Segment
from plato.planning.protocol import (
    PlanEnded,
    PlanEvent,
    PlanLine,
    PlanRequest,
    PlanStarted,
    PlanUsage,
)
from plato.runs import Node
from plato.runtime import LocalPool

STARTED = PlanStarted("a", "e1")
LINES = [PlanLine(Node(number, f"Part {number}")) for number in (1, 2)]
ENDED = PlanEnded(split=True, usage=PlanUsage(tokens=9, steps=5, prompt_tokens=40))


class Script:
    """A planner that notes how far it has come."""

    def __init__(self) -> None:
        self.sent: list[PlanEvent] = []

    async def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent]:
        for event in (STARTED, *LINES, ENDED):
            self.sent.append(event)
            yield event


async def test_lines_of_a_whole_plan_come_after_its_last_one() -> None:
    script = Script()
    seen: list[PlanEvent] = []
    async for event in WholePlan(script).plan(PlanRequest("r", "t", (), 8, decide=False)):
        if isinstance(event, PlanLine):
            assert script.sent[-1] is ENDED
        seen.append(event)
        if event is STARTED:
            assert script.sent == [STARTED]
    assert seen == [STARTED, *LINES, ENDED]


async def test_flat_priorities_are_all_0(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[GenerateRequest] = []

    async def generate(
        self: LocalPool, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        requests.append(request)
        for _ in ():
            yield _

    monkeypatch.setattr(LocalPool, "generate", generate)
    request = GenerateRequest("r", 1, Prompt((Segment((1,)),)), max_tokens=1, priority=3)
    async for _ in FlatPriority({}).generate(request):
        pass
    assert [sent.priority for sent in requests] == [0]
