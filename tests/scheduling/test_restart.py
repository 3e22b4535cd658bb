"""A part that no decoder can resume begins again, unless somebody has read some of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from plato.engine import Chunk, GenerateRequest, ResumptionRefusedError, UpstreamError
from plato.prompting.model_tools import ModelTools
from plato.runs import Mode, NodeOutput, NodeQueued, RunState
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import (
    FaultyPool,
    ScriptedPool,
    collect,
    failed,
    of,
    parts,
    question,
    watching,
)


class ForgetfulPool(FaultyPool):
    """A server that is away once, after its first token for some nodes, and cannot resume."""

    def __init__(self, pool: ScriptedPool, *nodes: int) -> None:
        super().__init__(pool, {node: UpstreamError("the server is away") for node in nodes})

    async def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        if request.emitted:
            raise ResumptionRefusedError("the engine cannot go on")
        if request.attempt:
            self._faults.pop(request.node, None)
        async with aclosing(super().generate(request, ranked)) as chunks:
            async for chunk in chunks:
                yield chunk


async def test_a_hidden_part_begins_again(make_scheduler: MakeScheduler, tools: ModelTools) -> None:
    scripted = ScriptedPool(tools)
    scripted.hold(1)
    scheduler = make_scheduler(ForgetfulPool(scripted, 2))
    asked = question(plan=parts((), ()))
    async with watching(scheduler, asked) as run:
        await run.until(lambda: any(queued.restarts for queued in run.of(NodeQueued)))
        scripted.resume(1)
    assert run.report.nodes[1].attempts == 3
    (again,) = (queued for queued in run.of(NodeQueued) if queued.restarts)
    assert (again.number, again.reason) == (2, "the engine cannot go on")
    # Whoever folds the events sees the text once, also from a condensed state.
    state = RunState(asked, run.events)
    assert state.text == "Text 1.\n\nText 2."
    assert state.nodes[2].text == "Text 2."
    condensed = RunState(asked, state.events())
    assert condensed.nodes[2].text == "Text 2."
    assert condensed.text == state.text


async def test_a_part_that_was_shown_fails_with_the_reason(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    scheduler = make_scheduler(ForgetfulPool(ScriptedPool(tools), 1))
    events = await collect(scheduler, question(Mode.SEQUENTIAL))
    end = failed(events)
    assert end.code == "node_failed"
    assert "shown in part (the engine cannot go on)" in end.message
    assert len([output for output in of(NodeOutput, events) if output.tokens]) == 1


class AwayPool(FaultyPool):
    """The only server, which is away from the first request on."""

    def __init__(self, pool: ScriptedPool, away_s: float) -> None:
        super().__init__(pool, {})
        self._away_s = away_s
        self._back_at: float | None = None

    async def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        now = asyncio.get_running_loop().time()
        self._back_at = self._back_at or now + self._away_s
        if now < self._back_at:
            raise UpstreamError("the server is away; trying again in a moment")
        async with aclosing(super().generate(request, ranked)) as chunks:
            async for chunk in chunks:
                yield chunk


async def test_a_part_waits_for_the_only_server_to_come_back(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    scheduler = make_scheduler(AwayPool(ScriptedPool(tools), 2.0))
    events = await collect(scheduler, question(plan=parts((), ())))
    assert RunState(question(plan=parts((), ())), tuple(events)).text == "Text 1.\n\nText 2."


async def test_a_part_does_not_wait_longer_than_its_deadline(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    scheduler = make_scheduler(AwayPool(ScriptedPool(tools), 60.0), node_deadline_s=0.5)
    end = failed(await collect(scheduler, question(plan=parts((), ()))))
    assert end.code == "deadline_exceeded"
    assert end.report.duration_s < 2
