"""Runs that cannot be finished: one clear error, and nothing goes on decoding."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from plato.engine import EngineBusyError, EngineClosedError
from plato.engine.torch import TorchEngine
from plato.prompting.model_tools import ModelTools
from plato.runs import Message, Mode, NodeCancelled, NodeFailed, NodeState
from plato.runtime import LocalPool
from plato.scheduling.scheduler import GraphScheduler
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import (
    FaultyPool,
    ScriptedPlanner,
    collect,
    failed,
    node,
    of,
    parts,
    question,
    until,
)

LONG = 1500


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RuntimeError("at 10.0.0.1"), 500, "node_failed"),
        (TimeoutError(), 500, "node_failed"),
        (asyncio.CancelledError(), 500, "node_failed"),
        (EngineBusyError("256 wait"), 429, "overloaded"),
        (EngineClosedError("shutting down"), 503, "unavailable"),
    ],
)
async def test_a_failing_node_ends_the_run_and_names_the_part(
    make_scheduler: MakeScheduler,
    pool: LocalPool,
    engine: TorchEngine,
    error: BaseException,
    status: int,
    code: str,
) -> None:
    scheduler = make_scheduler(FaultyPool(pool, {2: error}))
    plan = parts((), (), (), max_tokens=LONG)
    request = question(plan=plan, exact_lengths=True)
    events = await collect(scheduler, request)
    end = failed(events)
    assert (end.status, end.code) == (status, code)
    (part,) = of(NodeFailed, events)
    assert (part.number, part.message) == (2, end.message)
    assert {event.number for event in of(NodeCancelled, events)} == {1, 3}
    assert "part 2" in end.message
    assert "10.0.0.1" not in end.message
    assert (end.retry_after_s is not None) is (status in (429, 503))
    states = {number: node(end.report, number).state for number in (1, 2, 3)}
    assert states == {1: NodeState.CANCELLED, 2: NodeState.FAILED, 3: NodeState.CANCELLED}
    await until(lambda: engine.stats().live == ())


async def test_a_node_past_its_deadline(
    make_scheduler: MakeScheduler, pool: LocalPool, engine: TorchEngine
) -> None:
    scheduler = make_scheduler(pool, node_deadline_s=0.2)
    plan = parts((), (), max_tokens=LONG)
    end = failed(await collect(scheduler, question(plan=plan, exact_lengths=True)))
    assert (end.status, end.code) == (504, "deadline_exceeded")
    assert "part" in end.message
    assert "0.2 s" in end.message
    await until(lambda: engine.stats().live == ())


@pytest.mark.parametrize("mode", [Mode.PLATO, Mode.SEQUENTIAL])
async def test_a_run_past_its_deadline(
    scheduler: GraphScheduler, engine: TorchEngine, mode: Mode
) -> None:
    plan = parts((), (), max_tokens=LONG) if mode is Mode.PLATO else None
    request = question(mode, plan=plan, max_tokens=LONG, exact_lengths=True, deadline_s=0.2)
    end = failed(await collect(scheduler, request))
    assert (end.status, end.code, end.param) == (504, "deadline_exceeded", "plato.deadline_s")
    assert end.report is not None
    assert end.report.duration_s >= 0.2
    assert end.report.output_tokens > 0
    await until(lambda: engine.stats().live == ())


async def test_the_deadline_of_a_request_cannot_pass_the_deployments(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    scheduler = make_scheduler(pool, planner=ScriptedPlanner(asyncio.Event()), run_deadline_s=0.1)
    end = failed(await collect(scheduler, question(deadline_s=60.0)))
    assert end.code == "deadline_exceeded"


async def test_a_question_longer_than_the_context_is_the_callers_to_shorten(
    scheduler: GraphScheduler,
) -> None:
    for mode in (Mode.SEQUENTIAL, Mode.PLATO, Mode.AUTO):
        request = question(mode, messages=(Message("user", "salt " * 3000),))
        end = failed(await collect(scheduler, request))
        assert (end.status, end.code) == (400, "context_length_exceeded")


async def test_a_budget_that_no_engine_can_serve_is_the_callers_to_lower(
    make_scheduler: MakeScheduler, pool: LocalPool, tools: ModelTools
) -> None:
    # The layout believes in a longer context than the model has.
    scheduler = make_scheduler(pool, model=replace(tools, context_length=10_000))
    end = failed(await collect(scheduler, question(Mode.SEQUENTIAL, max_tokens=5000)))
    assert (end.status, end.type, end.param) == (400, "invalid_request_error", "max_tokens")


async def test_an_unexpected_error_ends_the_run_too(
    make_scheduler: MakeScheduler, pool: LocalPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = make_scheduler(pool)

    def broken(*_: object) -> int:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("plato.scheduling.node_tasks.node_budget", broken)
    events = await collect(scheduler, question(plan=parts((), ())))
    end = failed(events)
    assert end.status == 500
    assert "ZeroDivisionError" in end.message
    assert "secret" not in end.message


async def test_a_plan_that_is_no_graph_is_refused_before_anything_is_decoded(
    scheduler: GraphScheduler, engine: TorchEngine
) -> None:
    before = engine.stats().prompt_tokens
    end = failed(await collect(scheduler, question(plan=parts((), (3,), ()))))
    assert (end.status, end.code, end.param) == (400, "invalid_plan", "plato.plan")
    assert engine.stats().prompt_tokens == before
