"""Replicas die, hang and lose messages in mid-stream; the text stays what it would have been."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from plato.engine.torch import TorchEngine
from plato.engine.torch.core import EngineCore
from plato.prompting.model_tools import ModelTools
from plato.runs import NodeOutput, NodeQueued, RunEvent
from plato.scheduling.scheduler import GraphScheduler
from tests.faults import FaultyEngines
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import (
    DIAMOND,
    ScriptedPlanner,
    collect,
    failed,
    finished,
    of,
    parts,
    question,
    texts,
    until,
    watching,
)

LENGTH = 150


@pytest.fixture
async def engines(shared_engines: dict[str, TorchEngine]) -> AsyncIterator[FaultyEngines]:
    pool = FaultyEngines(dict(shared_engines))
    yield pool
    for name, engine in shared_engines.items():
        pool.go_on(name)
        await until(lambda engine=engine: engine.stats().live == ())
        await engine.inspect(EngineCore.check_integrity)


@pytest.fixture
def scheduler(make_scheduler: MakeScheduler, engines: FaultyEngines) -> GraphScheduler:
    return make_scheduler(engines, lease_ttl_s=0.6, silence_s=0.5)


def diamond() -> object:
    return question(plan=parts(*DIAMOND, max_tokens=LENGTH), exact_lengths=True)


def repeated(events: list[RunEvent]) -> int:
    """Tokens that were sent twice, or out of order."""
    have: dict[int, int] = {}
    wrong = 0
    for output in of(NodeOutput, events):
        wrong += output.offset != have.get(output.number, 0)
        have[output.number] = output.offset + len(output.tokens)
    return wrong


@pytest.fixture(scope="module")
def known() -> dict[int, str]:
    """The texts of a run that nothing happens to, once there has been one."""
    return {}


@pytest.fixture
async def undisturbed(
    make_scheduler: MakeScheduler, engines: FaultyEngines, known: dict[int, str]
) -> dict[int, str]:
    if not known:
        known.update(texts(await collect(make_scheduler(engines), diamond())))
    return known


@pytest.mark.parametrize(
    "fault",
    ["kill", *(pytest.param(name, marks=pytest.mark.slow) for name in ("hang", "drop"))],
)
async def test_a_fault_in_mid_stream_changes_no_text(
    scheduler: GraphScheduler,
    engines: FaultyEngines,
    undisturbed: dict[int, str],
    fault: str,
) -> None:
    async with watching(scheduler, diamond()) as run:
        await run.until(lambda: any(o.offset > 20 and o.number == 2 for o in run.of(NodeOutput)))
        name = engines.requests[-1][0]
        if fault == "drop":
            engines.switches[name].drops = 1
        else:
            getattr(engines, fault)(name)
    assert texts(run.events) == undisturbed
    assert repeated(run.events) == 0
    again = [event for event in run.of(NodeQueued) if event.attempt]
    assert again
    assert all(event.reason for event in again)
    assert max(node.attempts for node in run.report.nodes) == 2
    if fault != "drop":
        assert {place for place, request in engines.requests if request.attempt} - {name}


@pytest.mark.slow
async def test_a_node_that_kills_what_decodes_it_ends_its_run_and_not_the_pool(
    scheduler: GraphScheduler, engines: FaultyEngines
) -> None:
    poisonous = question(plan=parts((), ()))
    engines.poison.add(poisonous.run_id)

    async def revive() -> None:
        while True:
            for name in engines.switches:
                engines.revive(name)
            await asyncio.sleep(0.05)

    reviving = asyncio.create_task(revive())
    try:
        innocent = asyncio.create_task(collect(scheduler, diamond()))
        end = failed(await collect(scheduler, poisonous))
        assert end.code == "node_failed"
        assert "part" in end.message
        finished(await innocent)
    finally:
        reviving.cancel()
    assert sum(switch.lives for switch in engines.switches.values()) <= 8


@pytest.mark.slow
async def test_when_all_replicas_are_gone_a_node_waits_for_a_new_one(
    scheduler: GraphScheduler, engines: FaultyEngines, undisturbed: dict[int, str]
) -> None:
    async with watching(scheduler, diamond()) as run:
        await run.until(lambda: any(o.offset > 20 for o in run.of(NodeOutput)))
        for name in engines.switches:
            engines.kill(name)
        await asyncio.sleep(0.3)
        engines.revive("b")
    assert texts(run.events) == undisturbed


async def test_a_planner_that_dies_is_asked_again_from_what_it_has_sent(
    make_scheduler: MakeScheduler, engines: FaultyEngines, tools: ModelTools
) -> None:
    class Dying(ScriptedPlanner):
        async def plan(self, request):  # type: ignore[no-untyped-def]
            self._script = self.rest if request.attempt else self.first
            async for event in super().plan(request):
                yield event

    planner = Dying()
    one, two, three = parts((), (1,), (1,))
    planner.first = (one, two, RuntimeError("died"))  # type: ignore[attr-defined]
    planner.rest = (one, two, three)  # type: ignore[attr-defined]
    report = finished(await collect(make_scheduler(engines, planner=planner), question()))
    assert report.reason is None
    assert [part.number for part in report.nodes] == [1, 2, 3]
    assert [request.attempt for request in planner.requests] == [0, 1]
