"""What a run will need again it has pinned, and when it ends it lets go."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from plato.engine.torch import TorchEngine
from plato.engine.torch.core import EngineCore
from plato.prompting.model_tools import ModelTools
from plato.runs import Mode, NodeFinished, RunFinished
from plato.runtime import LocalPool
from plato.scheduling import node_decoder
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import (
    DEADLINE_S,
    DIAMOND,
    ScriptedPlanner,
    ScriptedPool,
    collect,
    finished,
    parts,
    question,
    until,
    watching,
)


@pytest.fixture
def pool(tools: ModelTools) -> ScriptedPool:
    return ScriptedPool(tools)


def kept(pool: ScriptedPool) -> dict[int, int | None]:
    return {request.node: request.keep for request in pool.requests}


async def test_a_part_is_kept_by_how_many_others_must_end_before_it_is_needed(
    make_scheduler: MakeScheduler, pool: ScriptedPool
) -> None:
    # 4 needs 1, 2 and 3; 5 needs 4 and 2; nobody needs 5 or 6.
    plan = parts((), (), (), (1, 2, 3), (2, 4), ())
    pool.hold(2)
    async with watching(make_scheduler(pool), question(plan=plan)) as run:
        await run.until(lambda: len(run.of(NodeFinished)) == 3)
        pool.resume(2)
    assert kept(pool) == {1: 2, 2: 2, 3: 2, 4: 0, 5: None, 6: None}


async def test_while_the_plan_is_written_everything_is_kept(
    make_scheduler: MakeScheduler, pool: ScriptedPool
) -> None:
    more = asyncio.Event()
    planner = ScriptedPlanner(*parts((), ()), more)
    async with watching(make_scheduler(pool, planner=planner), question()) as run:
        await run.until(lambda: len(run.of(NodeFinished)) == 2)
        more.set()
    assert kept(pool) == {1: 0, 2: 0}


@pytest.mark.parametrize("mode", [Mode.SKELETON, Mode.SEQUENTIAL])
async def test_parts_that_nobody_continues_are_not_kept(
    make_scheduler: MakeScheduler, pool: ScriptedPool, mode: Mode
) -> None:
    plan = parts(*DIAMOND) if mode is Mode.SKELETON else None
    await collect(make_scheduler(pool), question(mode, plan=plan))
    assert set(kept(pool).values()) == {None}
    assert pool.released == []


async def test_a_run_lets_go_where_it_has_kept_something(
    make_scheduler: MakeScheduler, pool: ScriptedPool
) -> None:
    request = question(plan=parts(*DIAMOND))
    finished(await collect(make_scheduler(pool), request))
    await until(lambda: pool.released == [(request.run_id, "scripted")])


async def test_a_run_that_is_cancelled_lets_go_too(
    make_scheduler: MakeScheduler, pool: ScriptedPool
) -> None:
    pool.hold(2)
    request = question(plan=parts((), (1,)))
    async with aclosing(make_scheduler(pool).run(request)) as batches:
        async for batch in batches:
            if any(isinstance(event, NodeFinished) for event in batch):
                break
    assert pool.released == [(request.run_id, "scripted")]


async def test_a_release_that_fails_does_not_fail_the_run(
    make_scheduler: MakeScheduler, pool: ScriptedPool
) -> None:
    pool.release_error = RuntimeError("lost")
    finished(await collect(make_scheduler(pool), question(plan=parts(*DIAMOND))))
    await until(lambda: pool.released)


async def test_a_release_that_hangs_delays_nobody(
    make_scheduler: MakeScheduler, pool: ScriptedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_decoder, "RELEASE_DEADLINE_S", 0.5)

    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(pool, "release", hang)
    async with asyncio.timeout(0.4):
        events = await collect(make_scheduler(pool), question(plan=parts(*DIAMOND)))
    assert isinstance(events[-1], RunFinished)


async def test_the_engine_holds_pins_while_the_run_lasts_and_none_after_it(
    make_scheduler: MakeScheduler, engine: TorchEngine
) -> None:
    def runs(core: EngineCore) -> set[str]:
        return {run for node in core.tree.nodes() for run in node.pins or ()}

    request = question(plan=parts((), (1,), max_tokens=40), exact_lengths=True)
    scheduler = make_scheduler(LocalPool({"local": engine}))
    async with watching(scheduler, request) as run:
        await run.until(lambda: bool(run.of(NodeFinished)))
        assert await engine.inspect(runs) == {request.run_id}
    async with asyncio.timeout(DEADLINE_S):
        while await engine.inspect(runs):
            pass
