"""What is recorded of runs: how they were answered, what had to be done again, what was reused."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from plato.engine import (
    EngineBusyError,
    EngineClosedError,
    EngineStats,
    GenerateRequest,
    Prompt,
    Segment,
)
from plato.engine.torch import TorchEngine
from plato.errors import UnavailableError
from plato.kv_transfer import fetch_prefix
from plato.metrics import Metric, table
from plato.metrics.recording import EngineSampler, record_run
from plato.planning.protocol import PlanEnded
from plato.prompting.model_tools import ModelTools
from plato.runs import Mode, NodeOutput, RunFailed
from plato.runtime import LocalPool
from plato.scheduling.scheduler import GraphScheduler
from plato.scheduling.stats import SchedulerSampler
from tests.faults import FaultyEngines
from tests.recording import MemoryRecorder
from tests.scheduling.cluster import Cluster
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import (
    DIAMOND,
    FaultyPool,
    ScriptedPlanner,
    ScriptedPool,
    collect,
    ended,
    failed,
    finished,
    parts,
    question,
    until,
    watching,
)

LENGTH = 250
"""Tokens of a node that something happens to: long enough to be still decoding then."""


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


async def test_a_planned_run_is_recorded_once_and_as_its_report_has_it(
    make_scheduler: MakeScheduler, pool: LocalPool, recorder: MemoryRecorder
) -> None:
    scheduler = make_scheduler(pool, recorder=recorder)
    report = finished(await collect(scheduler, question(plan=parts(*DIAMOND), exact_lengths=True)))
    await until(lambda: not scheduler.runs)

    assert recorder.total(table.RUNS, mode="plato", outcome="done") == 1
    assert recorder.values(table.RUN_SECONDS, mode="plato") == [report.duration_s]
    assert recorder.totals(table.NODES, "outcome") == {"done": 4}
    assert recorder.values(table.PLAN_NODES) == [4]
    assert recorder.values(table.PLAN_SECONDS) == [], "it was handed in"
    first = [node.first_token_s - node.started_s for node in report.nodes]
    assert recorder.values(table.NODE_FIRST_TOKEN_SECONDS) == first
    between = [(node.finished_s - node.first_token_s) / (node.tokens - 1) for node in report.nodes]
    assert recorder.values(table.INTER_TOKEN_SECONDS) == between
    assert recorder.totals(table.PLACEMENTS, "kv") == {"compute": 4}
    predicted = sum(node.predicted_cached_tokens for node in report.nodes)
    cached = sum(node.cached_tokens for node in report.nodes)
    assert recorder.total(table.REUSE_PREDICTED) == predicted > 0
    assert recorder.total(table.REUSE_ACTUAL) == cached
    missed = sum(max(0, n.predicted_cached_tokens - n.cached_tokens) for n in report.nodes)
    assert recorder.total(table.REUSE_MISSED) == missed
    for metric in (table.FALLBACKS, table.NODE_RETRIES, table.RUN_ERRORS_TOTAL):
        assert recorder.totals(metric, next(iter(metric.labels))) == {}


async def test_the_time_of_a_decoded_plan_is_recorded(
    make_scheduler: MakeScheduler, tools: ModelTools, recorder: MemoryRecorder
) -> None:
    planner = ScriptedPlanner(*parts((), ()))
    scheduler = make_scheduler(ScriptedPool(tools), planner=planner, recorder=recorder)
    report = finished(await collect(scheduler, question()))
    await until(lambda: not scheduler.runs)
    took = report.plan.finished_s - report.plan.started_s
    assert recorder.values(table.PLAN_SECONDS) == [took]


@pytest.mark.parametrize(
    ("script", "fields", "reason"),
    [
        ((ended(split=False),), {"mode": Mode.AUTO}, "not_split"),
        ((ended(),), {}, "too_few_parts"),
        ((ended(reason="the plan used up its token budget"),), {}, "too_few_parts"),
        ((), {"plan": parts(())}, "too_few_parts"),
        ((UnavailableError("away"),), {}, "planner_failed"),
    ],
)
async def test_an_answer_that_is_not_planned_has_a_reason(
    make_scheduler: MakeScheduler,
    tools: ModelTools,
    recorder: MemoryRecorder,
    script: tuple[PlanEnded | BaseException, ...],
    fields: dict[str, Any],
    reason: str,
) -> None:
    planner = ScriptedPlanner(*script)
    scheduler = make_scheduler(ScriptedPool(tools), planner=planner, recorder=recorder)
    report = finished(await collect(scheduler, question(**{"mode": Mode.PLATO, **fields})))
    assert report.mode is Mode.SEQUENTIAL
    await until(lambda: not scheduler.runs)
    assert recorder.totals(table.FALLBACKS, "reason") == {reason: 1}
    assert recorder.total(table.RUNS, mode="sequential", outcome="done") == 1
    # A planner that fails is asked once more.
    assert recorder.total(table.PLAN_RETRIES) == (reason == "planner_failed")


async def test_who_asks_for_a_sequential_answer_falls_back_to_nothing(
    make_scheduler: MakeScheduler, tools: ModelTools, recorder: MemoryRecorder
) -> None:
    scheduler = make_scheduler(ScriptedPool(tools), recorder=recorder)
    finished(await collect(scheduler, question(Mode.SEQUENTIAL)))
    assert recorder.totals(table.FALLBACKS, "reason") == {}


async def test_a_plan_that_breaks_off_behind_shown_text_is_a_fallback(
    make_scheduler: MakeScheduler, tools: ModelTools, recorder: MemoryRecorder
) -> None:
    more = asyncio.Event()
    planner = ScriptedPlanner(*parts(()), more, ended(reason="cut"))
    scheduler = make_scheduler(ScriptedPool(tools), planner=planner, recorder=recorder)
    async with watching(scheduler, question()) as run:
        await run.until(lambda: any(output.text for output in run.of(NodeOutput)))
        more.set()
    assert recorder.totals(table.FALLBACKS, "reason") == {"plan_broke_off": 1}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (EngineBusyError("256 wait"), "busy"),
        (EngineClosedError("the engine has died"), "engine"),
        (UnavailableError("gone"), "died"),
        (RuntimeError("actor died"), "died"),
        (asyncio.CancelledError(), "died"),
    ],
)
async def test_an_attempt_that_fails_is_a_retry_with_its_reason(
    make_scheduler: MakeScheduler,
    tools: ModelTools,
    recorder: MemoryRecorder,
    fault: BaseException,
    reason: str,
) -> None:
    pool = FaultyPool(ScriptedPool(tools), {1: fault})
    scheduler = make_scheduler(pool, recorder=recorder, node_attempts=2, max_runs=1)
    told = failed(await collect(scheduler, question(plan=parts((), ()))))
    await until(lambda: not scheduler.runs)
    retries = recorder.totals(table.NODE_RETRIES, "reason")
    assert set(retries) == {reason}
    assert retries[reason] >= 1
    assert recorder.total(table.RUNS, mode="plato", outcome="failed") == 1
    assert recorder.totals(table.RUN_ERRORS_TOTAL, "code") == {told.code: 1}
    assert recorder.total(table.NODES, outcome="failed") == 1


@pytest.mark.slow
async def test_a_decoder_that_hangs_is_silent_and_avoided(
    make_scheduler: MakeScheduler, shared_engines: dict[str, TorchEngine], recorder: MemoryRecorder
) -> None:
    engines = FaultyEngines(dict(shared_engines))
    scheduler = make_scheduler(engines, recorder=recorder, lease_ttl_s=0.6, silence_s=0.5)
    sample = SchedulerSampler(recorder, scheduler.stats)
    asked = question(plan=parts(*DIAMOND, max_tokens=LENGTH), exact_lengths=True)
    async with watching(scheduler, asked) as run:
        await run.until(lambda: any(output.offset > 10 for output in run.of(NodeOutput)))
        sample()
        assert recorder.values(table.RUNS_IN_FLIGHT) == [1]
        assert recorder.values(table.DECODERS_AVOIDED) == [0]
        name = engines.requests[-1][0]
        engines.hang(name)
        await until(lambda: recorder.totals(table.NODE_RETRIES, "reason"))
        sample()
        assert recorder.values(table.DECODERS_AVOIDED) == [1]
    engines.go_on(name)
    assert recorder.totals(table.NODE_RETRIES, "reason").keys() == {"silent"}
    assert recorder.total(table.DECODER_SILENCES) >= 1
    await until(lambda: not scheduler.runs)
    sample()
    assert recorder.values(table.RUNS_IN_FLIGHT) == [0]
    await until(lambda: all(e.stats().live == () for e in shared_engines.values()))


async def test_a_run_that_is_cancelled_is_no_failure(
    make_scheduler: MakeScheduler, tools: ModelTools, recorder: MemoryRecorder
) -> None:
    pool = ScriptedPool(tools)
    pool.hold(1, 2)
    scheduler = make_scheduler(pool, recorder=recorder)
    asked = question(plan=parts((), ()))
    async with watching(scheduler, asked) as run:
        await run.until(lambda: len(run.started) == 2)
        await scheduler.runs.cancel(asked.tenant, asked.run_id)
    assert recorder.total(table.RUNS, mode="plato", outcome="cancelled") == 1
    assert recorder.total(table.NODES, outcome="cancelled") == 2
    assert recorder.totals(table.RUN_ERRORS_TOTAL, "code") == {}


@pytest.mark.parametrize("code", ["handed_over", "taken_over"])
def test_a_run_that_goes_to_another_scheduler_has_not_ended(
    recorder: MemoryRecorder, code: str
) -> None:
    record_run(recorder, RunFailed("r", 1.0, status=500, type="t", code=code, message="moved"))
    assert recorder.totals(table.RUNS, "outcome") == {}


@pytest.mark.slow
async def test_a_run_that_is_taken_over_is_recorded_where_it_ends(
    cluster: Cluster, recorder: MemoryRecorder
) -> None:
    other = MemoryRecorder()
    first, second = cluster.schedulers
    first.scheduler._recorder, second.scheduler._recorder = other, recorder
    asked = question(plan=parts(*DIAMOND, max_tokens=LENGTH), exact_lengths=True)
    events = []
    async for batch in first.drive(asked, None):
        events += batch
        if any(isinstance(event, NodeOutput) and event.offset > 10 for event in events):
            break
    await first.kill()
    async for _ in second.drive(asked, tuple(events)):
        pass
    await until(lambda: not second.scheduler.runs)
    assert recorder.total(table.RUNS_TAKEN_OVER) == 1
    assert recorder.total(table.RUNS, mode="plato", outcome="done") == 1
    assert other.total(table.RUNS, mode="plato", outcome="done") == 0


async def test_an_engine_s_totals_are_those_of_its_runs(
    scheduler: GraphScheduler, shared_engine: TorchEngine, recorder: MemoryRecorder
) -> None:
    sample = EngineSampler(recorder, shared_engine.stats)
    sample()

    def counted(metric: Metric, **labels: str) -> float:
        return recorder.total(metric, **labels)

    before = counted(table.DECODED_TOKENS), counted(table.PROMPT_TOKENS, kv="cached")
    steps = counted(table.STEPS), counted(table.STEP_SEQUENCES), counted(table.BUSY_SECONDS)
    report = finished(await collect(scheduler, question(plan=parts(*DIAMOND), exact_lengths=True)))
    await until(lambda: shared_engine.stats().live == ())
    sample()
    assert counted(table.DECODED_TOKENS) - before[0] == report.output_tokens
    cached = counted(table.PROMPT_TOKENS, kv="cached") - before[1]
    assert cached == report.cached_tokens
    # Parts 2 and 3 share their steps; nothing was forced, so every token had a sequence's step.
    assert counted(table.STEP_SEQUENCES) - steps[1] == report.output_tokens
    assert counted(table.STEPS) - steps[0] < report.output_tokens
    assert 0 < counted(table.BUSY_SECONDS) - steps[2] < report.duration_s
    stats = shared_engine.stats()
    size = stats.kv_bytes_per_token
    assert recorder.values(table.KV_CAPACITY) == [stats.kv_capacity * size]
    assert 15 << 20 < stats.kv_capacity * size <= 16 << 20
    assert recorder.values(table.KV_USED) == [stats.kv_used * size]
    assert recorder.values(table.ENGINE_AVAILABLE) == [1.0]


def test_an_engine_that_has_failed_is_not_available(recorder: MemoryRecorder) -> None:
    def stats() -> EngineStats:
        raise EngineClosedError("it came back with another model")

    with pytest.raises(EngineClosedError):
        EngineSampler(recorder, stats)()
    assert recorder.values(table.ENGINE_AVAILABLE) == [0.0]


async def test_what_comes_of_getting_kv_from_another_engine_is_recorded(
    shared_engines: dict[str, TorchEngine], tools: ModelTools, recorder: MemoryRecorder
) -> None:
    source, target = shared_engines["a"], shared_engines["b"]
    tokens = tuple(range(40, 140))
    prompt = Prompt((Segment(tokens),), "metrics")
    request = GenerateRequest("r", 1, prompt, max_tokens=2, source="a", source_tokens=len(tokens))

    async def get(**fields: Any) -> int:
        asked = replace(request, **fields)
        return await fetch_prefix(target, asked, source.export_kv, recorder)

    assert await get() == 0, "nobody has it yet"
    async with aclosing(source.generate(request)) as chunks:
        async for _ in chunks:
            pass
    assert await get() == len(tokens)
    assert await get() == 0, "it is there"

    async def broken(_: Prompt, start: int) -> None:
        raise UnavailableError(f"no answer about {start}")

    longer = Prompt((Segment(tokens), Segment(tokens)), "metrics")
    asked = replace(request, prompt=longer, source_tokens=len(longer))
    assert await fetch_prefix(target, asked, broken, recorder) == 0
    outcomes = recorder.totals(table.KV_IMPORTS, "outcome")
    assert outcomes == {"missing": 1, "taken": 1, "unneeded": 1, "failed": 1}
    assert len(recorder.values(table.KV_IMPORT_SECONDS)) == 2
