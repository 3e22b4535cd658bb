"""Simulated services: they send what servers send, and what they send costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import cluster, scaleout
from benchmarks.common.closed_loop import Load
from benchmarks.common.measured_pace import measure_pace
from benchmarks.engine.stored import stored_pace
from benchmarks.simulation.costs import Costs, measure_scheduler
from benchmarks.simulation.pool import DecoderSpec, SimulatedDecoder, SimulatedPool
from benchmarks.simulation.scheduler import new_scheduler
from benchmarks.simulation.service import Service, Simulated
from benchmarks.simulation.virtual_time import Station, run_virtual
from plato.context import MemoryContextStore
from plato.prompting.model_tools import ModelTools
from plato.settings import Settings
from plato.testing.paced import Pace

PACE = Pace(step_ms=((1, 20.0), (4, 26.0), (16, 50.0)), prefill_tokens_per_s=1000.0)
DECODER = DecoderSpec(PACE, kv_tokens=20_000, width=16, chunk=256)
FREE = Costs(call_s=0.0, send_s=0.0, receive_s=0.0, node_s=0.0, group_s=0.0, write_s=0.0)
LOAD = Load(questions=4, warm_up_s=2.0, measured_s=6.0, scale=0.3)


@pytest.fixture(scope="module")
def tools(model_folder: str) -> ModelTools:
    return ModelTools.load(Settings(model=model_folder))


def simulate(tools: ModelTools, costs: Costs = FREE, interval_s: float = 0.1) -> Simulated:
    settings = Settings(stream_interval_s=interval_s)
    decoder = replace(DECODER, tick_s=interval_s)
    return Service(1, 1, decoder, settings, costs).answer(tools, LOAD)


def test_tokens_are_sent_in_groups(tools: ModelTools) -> None:
    often, seldom = simulate(tools, interval_s=0.05), simulate(tools, interval_s=0.4)
    assert seldom.messages_per_token < 0.7 * often.messages_per_token


def test_a_scheduler_that_works_all_the_time_bounds_the_throughput(tools: ModelTools) -> None:
    free, dear = simulate(tools), simulate(tools, replace(FREE, receive_s=0.1))
    assert free.scheduler_busy == 0
    assert dear.scheduler_busy > 0.9
    assert dear.figures.tokens_per_s < 0.7 * free.figures.tokens_per_s


def test_what_the_scheduler_does_itself_is_measured(tools: ModelTools) -> None:
    node_s, group_s = measure_scheduler(tools)
    assert 0 < group_s < node_s < 0.1


def test_step_times_are_found_from_outside(tools: ModelTools) -> None:
    async def measure() -> Pace:
        decoders = {"r0": SimulatedDecoder("r0", DECODER)}
        pool = SimulatedPool(decoders, Station(), call_s=0.01)
        scheduler = new_scheduler(tools, pool, Settings(), MemoryContextStore())
        found = await measure_pace(scheduler.run)
        await scheduler.close()
        return found

    found = run_virtual(measure())
    for (_, ms), (_, expected) in zip(found.step_ms, PACE.step_ms, strict=True):
        assert ms == pytest.approx(expected, rel=0.15)
    assert found.prefill_tokens_per_s == pytest.approx(PACE.prefill_tokens_per_s, rel=0.1)


def test_the_stored_step_times_are_those_of_an_engine() -> None:
    pace = stored_pace()
    widths, times = zip(*pace.step_ms, strict=True)
    assert widths == tuple(sorted(widths))
    assert times == tuple(sorted(times))
    assert pace.prefill_tokens_per_s > 100


def scaled(replicas: int, schedulers: int, rate: float, wait_s: float = 1.0) -> scaleout.Row:
    return {
        "replicas": replicas,
        "schedulers": schedulers,
        "tokens_per_s": rate,
        "first_text_p99_s": wait_s,
        "scheduler_us_per_token": 100.0,
        "messages_per_token": 0.5,
    }


def test_the_fewest_schedulers_that_reach_the_highest_rate_count() -> None:
    rows = [
        scaled(1, 1, 100.0),
        scaled(64, 1, 5000.0),
        scaled(64, 2, 6100.0),
        scaled(64, 4, 6200.0),
        scaled(64, 8, 9000.0, wait_s=scaleout.OBJECTIVE_S + 1),
    ]
    found = scaleout.metrics(rows, {256: 0.5})
    assert found["replicas_per_scheduler"] == 32
    assert found["linear_share_64"] == pytest.approx(6200 / 6400)


def test_efficiency_and_prediction_are_told_for_every_pool() -> None:
    rows = [
        {
            "decoders": decoders,
            "tokens_per_s": rate,
            "predicted_tokens_per_s": predicted,
            "of_prediction": rate / predicted,
            "generator_cpu": 0.1,
        }
        for decoders, rate, predicted in ((1, 100.0, 100.0), (4, 360.0, 400.0))
    ]
    found = cluster.metrics(rows)
    assert found["efficiency_4"] == pytest.approx(0.9)
    assert found["predicted_efficiency_4"] == pytest.approx(1.0)
    assert found["prediction_error_4"] == pytest.approx(0.111, abs=1e-3)
    assert found["least_of_prediction"] == pytest.approx(0.9)


def test_a_pool_without_decoders_is_refused() -> None:
    assert cluster.counts("4,1,2") == (1, 2, 4)
    with pytest.raises(ValueError, match="without decoders"):
        cluster.counts("0,2")
