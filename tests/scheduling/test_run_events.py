"""What a run reports while it goes, and whether its figures are true."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest

from plato.context import MemoryContextStore
from plato.engine import FinishReason
from plato.engine.torch import TorchEngine
from plato.engine.torch.core import EngineCore
from plato.errors import SlowConsumerError
from plato.prompting.model_tools import ModelTools
from plato.runs import (
    Mode,
    ModeChosen,
    Node,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeQueued,
    NodeStarted,
    NodeState,
    PlanFinished,
    RunEvent,
    RunFinished,
    RunState,
)
from plato.runtime import LocalPool
from plato.scheduling import event_log
from plato.scheduling.scheduler import GraphScheduler
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import (
    DIAMOND,
    ScriptedPlanner,
    ScriptedPool,
    Watched,
    collect,
    finished,
    node,
    of,
    parts,
    question,
    until,
)


def assert_in_order(events: list[RunEvent]) -> None:
    """What every stream of events promises."""
    assert [isinstance(event, RunFinished) for event in events[:-1]] == [False] * (len(events) - 1)
    assert len({event.run_id for event in events}) == 1
    times = [event.at_s for event in events]
    assert times == sorted(times)
    position = {id(event): index for index, event in enumerate(events)}
    (mode,) = of(ModeChosen, events)
    first_text = next(event for event in of(NodeOutput, events) if event.text)
    assert position[id(mode)] < position[id(first_text)]
    assert len(of(PlanFinished, events)) == 1
    for planned in of(NodePlanned, events):
        number = planned.node.number
        (queued,) = (event for event in of(NodeQueued, events) if event.number == number)
        (started,) = (event for event in of(NodeStarted, events) if event.number == number)
        (ended,) = (event for event in of(NodeFinished, events) if event.number == number)
        output = [event for event in of(NodeOutput, events) if event.number == number]
        assert (queued.report.state, queued.report.replica) == (NodeState.QUEUED, "")
        assert (started.report.state, started.report.replica) == (
            NodeState.RUNNING,
            ended.report.replica,
        )
        assert started.report.replica
        chain = [planned, queued, started, *output, ended]
        assert [position[id(event)] for event in chain] == sorted(
            position[id(event)] for event in chain
        )
        offset = 0
        for event in output:
            assert event.offset == offset
            offset += len(event.tokens)
        assert offset == ended.report.tokens
        for other in planned.node.dependencies:
            (needed,) = (event for event in of(NodeFinished, events) if event.number == other)
            assert position[id(needed)] < position[id(queued)]


@pytest.mark.parametrize("mode", [Mode.PLATO, Mode.SKELETON, Mode.SEQUENTIAL])
async def test_events_come_in_order(scheduler: GraphScheduler, mode: Mode) -> None:
    plan = None if mode is Mode.SEQUENTIAL else parts(*DIAMOND)
    assert_in_order(await collect(scheduler, question(mode, plan=plan)))


async def test_a_slow_consumer_gets_the_events_in_order_and_slows_nothing(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    pool = ScriptedPool(tools)
    planner = ScriptedPlanner(*parts((), (), (), (1,), (2, 3)))
    scheduler = make_scheduler(pool, planner=planner)
    events: list[RunEvent] = []
    async with aclosing(scheduler.run(question())) as batches:
        events += await anext(batches)
        # Nobody reads, and the run comes to its end.
        await until(lambda: not scheduler.runs)
        async for batch in batches:
            events += batch
            await asyncio.sleep(0.001)
    assert_in_order(events)


async def test_a_consumer_that_does_not_read_is_dropped_and_told(
    make_scheduler: MakeScheduler, tools: ModelTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "MAX_EVENTS_BEHIND", 20)
    store, asked = MemoryContextStore(), question(plan=parts((), (), (1, 2)))
    pool = ScriptedPool(tools)
    pool.hold(1)
    scheduler = make_scheduler(pool, store=store)
    async with aclosing(scheduler.run(asked)) as stuck:
        await anext(stuck)
        reader = Watched()
        reading = asyncio.create_task(reader.take(scheduler.runs.follow("", asked.run_id)))
        await reader.until(lambda: bool(reader.of(NodeStarted)))
        pool.resume(1)
        # The other follower gets everything: nobody waits for the one that is stuck.
        await asyncio.wait_for(reading, 30)
        assert_in_order(reader.events)
        with pytest.raises(SlowConsumerError, match="not read in time"):
            async for _ in stuck:
                pass
    assert isinstance(reader.events[-1], RunFinished)


async def test_a_follower_that_leaves_a_run_lets_it_go_on(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    pool = ScriptedPool(tools)
    pool.hold(1, 2)
    scheduler = make_scheduler(pool)
    asked = question(plan=parts((), ()))
    await scheduler.open(asked)
    async with aclosing(scheduler.runs.follow("", asked.run_id)) as batches:
        await anext(batches)
    assert asked.run_id in scheduler.runs
    pool.resume(1, 2)
    await until(lambda: not scheduler.runs)
    snapshot = await scheduler.runs.snapshot("", asked.run_id)
    assert isinstance(snapshot.events[-1], RunFinished)


async def test_a_call_that_leaves_does_not_take_the_run_from_the_one_that_has_joined(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    pool = ScriptedPool(tools)
    pool.hold(1, 2)
    scheduler = make_scheduler(pool)
    asked = question(plan=parts((), ()))
    first = scheduler.run(asked)
    received = await anext(first)
    # The first caller took this scheduler for dead, and its retry has come back to it.
    second = Watched()
    joined = asyncio.create_task(second.take(scheduler.run(asked, received)))
    await second.until(lambda: bool(second.events))
    await first.aclose()
    pool.resume(1, 2)
    await asyncio.wait_for(joined, 30)
    assert_in_order(second.events)
    assert second.report.finish_reason == "stop"


async def test_a_run_outlives_calls_that_come_and_go_before_the_one_that_stays(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    pool = ScriptedPool(tools)
    pool.hold(1, 2)
    scheduler = make_scheduler(pool)
    asked = question(plan=parts((), ()))
    first = scheduler.run(asked)
    received = await anext(first)
    # A retry that is given up while the first call is still there.
    second = scheduler.run(asked, received)
    await anext(second)
    await second.aclose()
    # And after a pause of this process, in which all of them were given up but the last.
    time.sleep(1.0)  # noqa: ASYNC251
    leaving = asyncio.create_task(first.aclose())
    await asyncio.sleep(0.2)
    last = Watched()
    joined = asyncio.create_task(last.take(scheduler.run(asked, received)))
    await last.until(lambda: bool(last.events))
    await asyncio.wait_for(leaving, 30)
    pool.resume(1, 2)
    await asyncio.wait_for(joined, 30)
    assert last.report.finish_reason == "stop"


async def test_a_run_that_everybody_has_left_is_cancelled_at_once(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    pool = ScriptedPool(tools)
    pool.hold(1, 2)
    scheduler = make_scheduler(pool)
    calls = [scheduler.run(asked := question(plan=parts((), ())))]
    received = await anext(calls[0])
    calls.append(scheduler.run(asked, received))
    await anext(calls[1])
    for call in calls:
        assert asked.run_id in scheduler.runs
        await asyncio.wait_for(call.aclose(), 30)
    assert asked.run_id not in scheduler.runs


async def test_released_text_is_the_answer_at_its_bytes(scheduler: GraphScheduler) -> None:
    asked = question(plan=parts(*DIAMOND), headings=True)
    events = await collect(scheduler, asked)
    released = [event for event in events if event.text]
    answer = "".join(event.text for event in released)
    assert "## Part 4" in answer
    end = 0
    # Also of events without text: a client truncates its answer there.
    for event in events:
        assert event.text_offset == end
        end += len(event.text.encode())
    state = RunState(asked, events)
    assert (state.text, state.text_bytes) == (answer, end)


async def test_figures_are_those_of_the_engine(
    scheduler: GraphScheduler, engine: TorchEngine
) -> None:
    before = engine.stats()
    report = finished(await collect(scheduler, question(max_nodes=4)))
    assert report.plan.tokens > 0
    after = engine.stats()
    assert report.prompt_tokens == after.prompt_tokens - before.prompt_tokens
    assert report.cached_tokens == after.cached_tokens - before.cached_tokens
    spent = report.output_tokens + report.plan.tokens
    assert spent == after.output_tokens - before.output_tokens
    assert report.duration_s >= max(part.finished_s or 0.0 for part in report.nodes)


async def test_a_diamond_reports_what_each_part_sees_and_continues(
    scheduler: GraphScheduler,
) -> None:
    report = finished(
        await collect(scheduler, question(plan=parts(*DIAMOND), include_prompts=True))
    )
    assert [part.sees for part in report.nodes] == [(), (1,), (1,), (1, 2, 3)]
    assert [part.continues for part in report.nodes][:3] == [None, 1, 1]
    assert node(report, 4).continues in (2, 3)
    for part in report.nodes:
        assert part.state is NodeState.DONE
        assert part.finish is FinishReason.LENGTH
        assert part.tokens == 12
        assert part.attempts == 1
        assert (part.replica, part.shortened) == ("local", ())
        assert part.epoch
        assert part.prompt is not None
        assert part.title in part.prompt
        assert part.planned_s <= (part.started_s or 0) <= (part.first_token_s or 0)
        assert (part.first_token_s or 0) <= (part.finished_s or 0)


async def test_prompts_are_reported_only_when_asked_for(scheduler: GraphScheduler) -> None:
    report = finished(await collect(scheduler, question(plan=parts((), ()))))
    assert [part.prompt for part in report.nodes] == [None, None]


async def test_placement_predicts_what_the_engine_finds_cached(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    scheduler = make_scheduler(pool)
    asked = question(plan=parts(*DIAMOND))
    await collect(scheduler, asked)
    again = finished(await collect(scheduler, asked))
    for part in again.nodes:
        assert part.predicted_cached_tokens == part.cached_tokens == part.prompt_tokens - 1
    follower = node(again, 2)
    assert follower.cached_tokens > node(again, 1).prompt_tokens


async def test_another_scheduler_predicts_nothing_and_finds_all_the_same(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    asked = question(Mode.SEQUENTIAL)
    await collect(make_scheduler(pool), asked)
    (part,) = finished(await collect(make_scheduler(pool), asked)).nodes
    assert part.predicted_cached_tokens == 0
    assert part.cached_tokens == part.prompt_tokens - 1


async def test_closing_the_events_cancels_plan_and_nodes_in_the_engine(
    make_scheduler: MakeScheduler, pool: LocalPool, engine: TorchEngine
) -> None:
    # The plan is long enough to be still node_decoder, and so is its first part.
    scheduler = make_scheduler(pool, node_max_tokens=1500)
    request = question(exact_lengths=True)
    async with aclosing(scheduler.run(request)) as batches:
        async for batch in batches:
            if of(NodeOutput, list(batch)):
                live = {number for run, number in engine.stats().live if run == request.run_id}
                break
    assert live >= {0, 1}
    assert len(scheduler.runs) == 0
    await until(lambda: engine.stats().live == (), timeout_s=1.0)
    await engine.inspect(EngineCore.check_integrity)


async def test_a_cancelled_consumer_cancels_too(
    scheduler: GraphScheduler, engine: TorchEngine
) -> None:
    request = question(plan=parts((), (), max_tokens=1500), exact_lengths=True)
    task = asyncio.create_task(collect(scheduler, request))
    await until(lambda: len(engine.stats().live) == 2)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await until(lambda: engine.stats().live == (), timeout_s=1.0)
    assert len(scheduler.runs) == 0


async def test_a_title_stays_with_its_part(scheduler: GraphScheduler) -> None:
    plan = (Node(1, "Salt"), Node(2, "Depth", (1,)))
    events = await collect(scheduler, question(plan=plan))
    assert [event.node for event in of(NodePlanned, events)] == list(plan)
    assert [part.title for part in finished(events).nodes] == ["Salt", "Depth"]
