"""Many runs in one scheduler: admission, and each as if it were alone."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from plato.engine import SamplingParams
from plato.engine.torch import TorchEngine
from plato.prompting.model_tools import ModelTools
from plato.runs import Mode
from plato.runtime import LocalPool
from plato.scheduling.scheduler import GraphScheduler
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import (
    DIAMOND,
    ScriptedPool,
    collect,
    failed,
    finished,
    parts,
    question,
    texts,
    until,
    watching,
)


async def test_past_its_bound_it_refuses_and_says_when_to_come_back(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    pool = ScriptedPool(tools)
    pool.hold(1)
    scheduler = make_scheduler(pool, max_runs=1, max_waiting_runs=0)
    async with watching(scheduler, question(Mode.SEQUENTIAL)):
        await until(lambda: pool.live)
        refused = await collect(scheduler, question(Mode.SEQUENTIAL))
        assert len(refused) == 1
        end = failed(refused)
        assert (end.status, end.type, end.code) == (429, "rate_limit_error", "overloaded")
        assert end.retry_after_s is not None
        assert end.retry_after_s > 0
        pool.resume(1)
    finished(await collect(scheduler, question(Mode.SEQUENTIAL)))


async def test_a_run_that_is_left_makes_room(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    pool = ScriptedPool(tools)
    pool.hold(1)
    scheduler = make_scheduler(pool, max_runs=1)
    asked = question(Mode.SEQUENTIAL)
    async with aclosing(scheduler.run(asked)) as batches:
        await anext(batches)
        assert asked.run_id in scheduler.runs
    assert len(scheduler.runs) == 0
    assert pool.live == set()


@pytest.mark.slow
async def test_a_run_gives_the_same_texts_alone_and_among_others(
    scheduler: GraphScheduler, engine: TorchEngine
) -> None:
    async def ask(seed: int) -> dict[int, str]:
        sampling = SamplingParams(temperature=0.8, top_p=0.9, seed=seed)
        return texts(await collect(scheduler, question(plan=parts(*DIAMOND), sampling=sampling)))

    alone = await ask(1)
    together = await asyncio.gather(*(ask(seed) for seed in range(1, 5)))
    assert together[0] == alone
    assert len({tuple(sorted(shown.items())) for shown in together}) == 4


async def test_more_sequences_than_places_only_wait(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    scheduler = make_scheduler(pool, node_max_tokens=4)
    asked = [question(plan=parts((), (), (), (), (), ())) for _ in range(6)]
    for events in await asyncio.gather(*(collect(scheduler, one) for one in asked)):
        assert len(texts(events)) == 6
        finished(events)


async def test_two_schedulers_do_not_keep_each_others_sequences_alive(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    pool = ScriptedPool(tools)
    for _ in range(2):
        await collect(make_scheduler(pool), question(Mode.SEQUENTIAL))
    owners = [request.lease.owner for request in pool.requests if request.lease]
    assert len(set(owners)) == 2
