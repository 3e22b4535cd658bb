"""When a node starts: at the later of its line's end and its last dependency's end."""

from __future__ import annotations

import asyncio

from plato.engine import SamplingParams
from plato.prompting.model_tools import ModelTools
from plato.runs import Mode, NodeFinished, NodePlanned, PlanFinished
from plato.runtime import LocalPool
from plato.scheduling.scheduler import GraphScheduler
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import (
    DIAMOND,
    ScriptedPlanner,
    ScriptedPool,
    collect,
    finished,
    node,
    of,
    parts,
    question,
    texts,
    watching,
)


async def test_a_node_starts_when_its_line_is_complete_and_not_with_the_next_one(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    first, second = parts((), (1,))
    more, rest = asyncio.Event(), asyncio.Event()
    scheduler = make_scheduler(pool, planner=ScriptedPlanner(first, more, second, rest))
    async with watching(scheduler, question()) as run:
        await run.until(lambda: bool(run.of(NodeFinished)))
        assert run.started == [1]
        more.set()
        await run.until(lambda: len(run.of(NodeFinished)) == 2)
        assert not run.of(PlanFinished)
        rest.set()
    assert run.report.mode is Mode.PLATO


async def test_a_node_whose_line_is_known_waits_for_its_last_dependency(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    pool = ScriptedPool(tools)
    pool.hold(1, 2)
    scheduler = make_scheduler(pool)
    plan = parts((), (), (1, 2))
    async with watching(scheduler, question(plan=plan)) as run:
        pool.resume(2)
        await run.until(lambda: bool(run.of(NodeFinished)))
        assert run.started == [1, 2]
        pool.resume(1)
    assert run.started == [1, 2, 3]


async def test_a_node_starts_at_once_when_both_are_there(scheduler: GraphScheduler) -> None:
    report = finished(await collect(scheduler, question(plan=parts(*DIAMOND))))
    for number, needs in enumerate(DIAMOND, start=1):
        part = node(report, number)
        ends = [node(report, other).finished_s or 0.0 for other in needs]
        ready = max([part.planned_s, *ends])
        assert part.started_s is not None
        assert ready <= part.started_s < ready + 0.1


async def test_independent_nodes_decode_at_the_same_time(scheduler: GraphScheduler) -> None:
    report = finished(await collect(scheduler, question(plan=parts((), (), ()))))
    starts = [part.started_s or 0.0 for part in report.nodes]
    ends = [part.finished_s or 0.0 for part in report.nodes]
    assert max(starts) < min(ends)


async def test_ready_nodes_go_out_longest_path_first(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    pool = ScriptedPool(tools)
    # 2 heads a path of three, 3 one of two, 1 only itself.
    plan = parts((), (), (), (2,), (4,), (3,))
    finished(await collect(make_scheduler(pool), question(plan=plan)))
    assert pool.started[:3] == [2, 3, 1]
    assert [request.priority for request in pool.requests[:3]] == [3, 2, 1]


async def test_skeleton_drops_dependencies(scheduler: GraphScheduler) -> None:
    events = await collect(scheduler, question(Mode.SKELETON, plan=parts(*DIAMOND)))
    report = finished(events)
    assert report.mode is Mode.SKELETON
    assert all(event.node.dependencies == () for event in of(NodePlanned, events))
    assert all(part.sees == () and part.continues is None for part in report.nodes)
    assert max(part.started_s or 0.0 for part in report.nodes) < 0.2


async def test_sequential_asks_no_planner(make_scheduler: MakeScheduler, pool: LocalPool) -> None:
    planner = ScriptedPlanner()
    scheduler = make_scheduler(pool, planner=planner)
    report = finished(await collect(scheduler, question(Mode.SEQUENTIAL)))
    assert planner.requests == []
    assert (report.mode, report.reason, report.plan.source) == (Mode.SEQUENTIAL, None, "none")
    assert [part.number for part in report.nodes] == [1]


async def test_only_auto_lets_the_model_decide(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    for mode, decides in ((Mode.AUTO, True), (Mode.PLATO, False), (Mode.SKELETON, False)):
        planner = ScriptedPlanner(*parts((), ()))
        scheduler = make_scheduler(pool, planner=planner)
        report = finished(await collect(scheduler, question(mode)))
        assert planner.requests[0].decide is decides
        assert report.mode is (Mode.SKELETON if mode is Mode.SKELETON else Mode.PLATO)


async def test_the_plan_of_the_real_planner_is_followed(scheduler: GraphScheduler) -> None:
    events = await collect(scheduler, question(max_nodes=4))
    report = finished(events)
    assert report.plan.source == "model"
    assert report.plan.nodes == len(report.nodes) >= 2
    assert report.plan.tokens >= report.plan.steps > 0
    first_start = node(report, 1).started_s
    assert first_start is not None
    assert first_start < report.plan.finished_s


async def test_the_same_seed_gives_the_same_texts_and_another_one_others(
    scheduler: GraphScheduler,
) -> None:
    async def ask(seed: int) -> dict[int, str]:
        sampling = SamplingParams(temperature=0.8, seed=seed)
        return texts(await collect(scheduler, question(plan=parts(*DIAMOND), sampling=sampling)))

    assert await ask(7) == await ask(7) != await ask(8)
