"""Plans that fail: the question is answered all the same, and the answer says how."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from plato.engine import EngineBusyError, SamplingParams
from plato.engine.grammar import answer_grammar, json_grammar
from plato.errors import RunNotFoundError, UnavailableError
from plato.metrics.table import RUNS
from plato.planning.protocol import PlanEnded
from plato.prompting.model_tools import ModelTools
from plato.runs import (
    Message,
    Mode,
    ModeChosen,
    NodeOutput,
    NodePlanned,
    PlanFinished,
    RunEvent,
    RunReport,
)
from plato.runtime import LocalPool
from plato.scheduling.plan_phase import CALL, STRUCTURED
from tests.recording import MemoryRecorder
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import (
    ScriptedPlanner,
    ScriptedPool,
    collect,
    ended,
    failed,
    finished,
    node,
    of,
    parts,
    question,
    texts,
    watching,
)

ANY_JSON = json_grammar({"type": "object"})


def answered_sequentially(events: list[RunEvent]) -> RunReport:
    """The report, after a look at everything a sequential answer promises."""
    report = finished(events)
    assert report.mode is Mode.SEQUENTIAL
    chosen = of(ModeChosen, events)
    assert [event.mode for event in chosen] == [Mode.SEQUENTIAL]
    written = [event for event in of(NodeOutput, events) if event.text]
    assert written
    assert events.index(chosen[0]) < events.index(written[0])
    assert [part.number for part in report.nodes] == [1]
    assert report.nodes[0].dependencies == ()
    return report


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnavailableError("no planner answers"), "the planner failed: no planner answers"),
        (EngineBusyError("256 wait"), "the planner failed: 256 wait"),
        (RuntimeError("at 10.0.0.1"), "the planner failed (RuntimeError)"),
        (TimeoutError(), "the planner failed (TimeoutError)"),
        (asyncio.CancelledError(), "the planner was cancelled"),
    ],
)
async def test_a_planner_that_raises(
    make_scheduler: MakeScheduler, pool: LocalPool, error: BaseException, reason: str
) -> None:
    scheduler = make_scheduler(pool, planner=ScriptedPlanner(error))
    report = answered_sequentially(await collect(scheduler, question()))
    assert report.reason == reason


@pytest.mark.parametrize(("function", "reason"), [(None, STRUCTURED), ("f", CALL)])
async def test_an_answer_under_a_grammar_is_not_planned(
    make_scheduler: MakeScheduler, tools: ModelTools, function: str | None, reason: str
) -> None:
    pool, planner = ScriptedPool(tools), ScriptedPlanner(*parts((), ()))
    sampling = SamplingParams(repetition_penalty=1.2)
    asked = question(Mode.AUTO, grammar=ANY_JSON, function=function, sampling=sampling)
    report = answered_sequentially(await collect(make_scheduler(pool, planner=planner), asked))
    assert report.reason == reason
    assert planner.requests == []
    (request,) = pool.requests
    assert request.grammar == answer_grammar(ANY_JSON)
    # Its punctuation is not penalised: texts and lists could not end otherwise.
    exempt = {tools.tokenizer.decode((token,)) for token in request.sampling.penalty_exempt}
    assert {'"', "}", '",', "]"} <= exempt


@pytest.mark.parametrize("count", [0, 1])
async def test_a_plan_of_fewer_than_two_parts(
    make_scheduler: MakeScheduler, tools: ModelTools, count: int
) -> None:
    pool = ScriptedPool(tools)
    pool.hold(1)
    plan = parts((), ())[:count]
    scheduler = make_scheduler(pool, planner=ScriptedPlanner(*plan, ended()))
    async with watching(scheduler, question()) as run:
        await run.until(lambda: bool(run.of(PlanFinished)))
        pool.resume(1)
    report = answered_sequentially(run.events)
    assert report.reason == "the plan has fewer than two parts"
    assert report.plan.tokens == 30


@pytest.mark.parametrize("count", [0, 1])
async def test_who_only_wants_a_planned_answer_gets_no_other_and_pays_nothing(
    make_scheduler: MakeScheduler, tools: ModelTools, count: int
) -> None:
    pool, recorder = ScriptedPool(tools), MemoryRecorder()
    pool.hold(1)
    planner = ScriptedPlanner(*parts(())[:count], ended(split=count > 0))
    scheduler = make_scheduler(pool, planner=planner, recorder=recorder, tenant_tokens_per_minute=1)
    for _ in range(2):
        asked = question(Mode.AUTO, tenant="me", planned_only=True)
        events = await collect(scheduler, asked)
        assert failed(events).code == "unplanned"
        assert not of(ModeChosen, events)
        with pytest.raises(RunNotFoundError):
            await scheduler.runs.snapshot("me", asked.run_id)
    await scheduler.drain()
    assert not (await scheduler.runs.overviews("me")).runs
    assert recorder.totals(RUNS, "outcome") == {}
    assert not pool.live


async def test_a_planned_answer_is_recorded_if_no_other_is_wanted(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    planner = ScriptedPlanner(*parts((), ()))
    scheduler = make_scheduler(ScriptedPool(tools), planner=planner)
    asked = question(Mode.AUTO, tenant="me", planned_only=True)
    assert finished(await collect(scheduler, asked)).mode is Mode.PLATO
    await scheduler.drain()
    (run,) = (await scheduler.runs.overviews("me")).runs
    assert (run.request.run_id, run.status) == (asked.run_id, "done")
    assert (await scheduler.runs.snapshot("me", asked.run_id)).events


async def test_the_only_part_of_a_plan_is_cancelled_before_the_sequential_answer(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    (only,) = parts((), max_tokens=1900)
    rest = asyncio.Event()
    scheduler = make_scheduler(pool, planner=ScriptedPlanner(only, rest))
    # Without text nobody has seen anything of it yet, so it can still go.
    scheduler_events = watching(scheduler, question(exact_lengths=True, max_tokens=8))
    async with scheduler_events as run:
        await run.until(lambda: len(run.of(NodePlanned)) == 1)
        rest.set()
    assert len(run.of(NodePlanned)) == 2
    assert sum(event.node.title == only.title for event in run.of(NodePlanned)) == 1


async def test_a_plan_handed_in_with_one_part(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    request = question(plan=parts((), max_tokens=5), exact_lengths=True)
    report = answered_sequentially(await collect(make_scheduler(pool), request))
    assert report.reason == "the plan has fewer than two parts"
    assert node(report, 1).tokens == 5


async def test_the_model_decides_not_to_split(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    planner = ScriptedPlanner(ended(split=False, probability=0.83))
    report = answered_sequentially(
        await collect(make_scheduler(pool, planner=planner), question(Mode.AUTO))
    )
    assert "0.83" in (report.reason or "")
    assert report.plan.one_probability == 0.83
    assert report.prompt_tokens == report.plan.prompt_tokens + report.nodes[0].prompt_tokens


@pytest.mark.slow
async def test_a_planner_that_hangs_before_any_text(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    planner = ScriptedPlanner(asyncio.Event())
    scheduler = make_scheduler(pool, planner=planner, plan_deadline_s=0.05)
    report = answered_sequentially(await collect(scheduler, question()))
    assert report.reason == "the plan took longer than 0.05 s"
    assert planner.closed


async def test_two_parts_before_the_deadline_are_kept(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    planner = ScriptedPlanner(*parts((), (1,)), asyncio.Event())
    scheduler = make_scheduler(pool, planner=planner, plan_deadline_s=0.05)
    report = finished(await collect(scheduler, question()))
    assert report.mode is Mode.PLATO
    assert [part.number for part in report.nodes] == [1, 2]
    assert report.reason == "the plan took longer than 0.05 s"
    assert planner.closed


@pytest.mark.parametrize("reason", ["the plan used up its token budget", None])
async def test_a_plan_that_ends_early_says_so(
    make_scheduler: MakeScheduler, pool: LocalPool, reason: str | None
) -> None:
    ending: PlanEnded = ended(reason=reason)
    scheduler = make_scheduler(pool, planner=ScriptedPlanner(*parts((), ()), ending))
    events = await collect(scheduler, question())
    assert finished(events).reason == reason
    assert [event.reason for event in of(PlanFinished, events)] == [reason]


async def test_a_plan_that_breaks_off_when_text_has_been_shown_gets_a_rest(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    (first,) = parts(())
    shown = asyncio.Event()
    planner = ScriptedPlanner(first, shown, RuntimeError("lost"))
    async with watching(make_scheduler(pool, planner=planner), question()) as run:
        await run.until(lambda: any(event.text for event in run.of(NodeOutput)))
        shown.set()
    report = run.report
    assert report.mode is Mode.PLATO
    assert "the planner failed (RuntimeError)" in (report.reason or "")
    assert [event.mode for event in run.of(ModeChosen)] == [Mode.PLATO]
    rest = node(report, 2)
    assert rest.dependencies == rest.sees == (1,)
    assert rest.continues == 1
    assert report.plan.nodes == 2
    assert set(texts(run.events)) == {1, 2}


async def test_auto_does_not_split_what_leaves_no_room_for_a_part(
    make_scheduler: MakeScheduler, pool: LocalPool, tools: ModelTools
) -> None:
    planner = ScriptedPlanner(*parts((), ()))
    scheduler = make_scheduler(pool, planner=planner)
    long = (Message("user", "word " * (tools.context_length - 80)),)
    asked = replace(question(Mode.AUTO), messages=long)
    report = answered_sequentially(await collect(scheduler, asked))
    assert "context" in (report.reason or "")
    assert planner.requests == []
