"""The benchmarks' arithmetic."""

from __future__ import annotations

import asyncio
import random
from statistics import fmean, pstdev

import pytest

from benchmarks.common.statistics import bootstrap, holm, percentile, sign_test, spread
from benchmarks.common.workload import fixed_graphs
from benchmarks.simulation.virtual_time import Station, run_virtual
from plato.runs import PlanGraph


def test_percentiles_are_interpolated() -> None:
    assert percentile([4, 1, 3, 2], 0.5) == 2.5
    assert percentile([1, 2, 3], 0.0) == 1
    assert percentile([1, 2, 3], 1.0) == 3
    assert percentile([7], 0.9) == 7
    assert spread([1, 2, 3])["median"] == 2


def test_an_interval_holds_the_mean_and_is_narrow_where_values_agree() -> None:
    low, high = bootstrap([1.0, 2.0, 3.0, 4.0], fmean)
    assert 1.0 <= low < 2.5 < high <= 4.0
    assert bootstrap([2.0, 2.0], fmean) == (2.0, 2.0)


def test_intervals_hold_the_true_mean_about_as_often_as_they_say() -> None:
    chance = random.Random(1)
    samples = [[chance.choice((-1, 0, 1, 1)) for _ in range(25)] for _ in range(40)]
    intervals = [bootstrap(each, fmean) for each in samples]
    assert sum(low <= 0.25 <= high for low, high in intervals) >= 34
    # That of the normal distribution.
    expected = fmean(2 * 1.96 * pstdev(each) / 25**0.5 for each in samples)
    assert fmean(high - low for low, high in intervals) == pytest.approx(expected, rel=0.05)


def test_the_sign_test_is_the_exact_binomial() -> None:
    # 2 * (1 + 10 + 45) / 1024, and with 5 heads in 5 throws 2 / 32.
    assert sign_test(8, 2) == sign_test(2, 8) == pytest.approx(0.109375)
    assert sign_test(5, 0) == pytest.approx(0.0625)
    assert sign_test(3, 3) == sign_test(0, 0) == 1.0


def test_holm_multiplies_by_the_tests_that_are_left_and_never_decreases() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert holm({"a": 0.9, "b": 0.6}) == {"a": 1.0, "b": 1.0}


def test_simulated_time_jumps_and_stations_do_one_thing_at_a_time() -> None:
    async def play() -> list[float]:
        loop, station = asyncio.get_running_loop(), Station()
        ends: list[float] = []

        async def work(seconds: float) -> None:
            await station.work(seconds)
            ends.append(loop.time())

        await asyncio.gather(work(100.0), work(50.0), work(25.0))
        await asyncio.sleep(1000.0)
        await work(1.0)
        assert station.busy_s == 176.0
        return ends

    assert run_virtual(play()) == pytest.approx([100.0, 150.0, 175.0, 1176.0])


def test_a_simulation_that_waits_for_nothing_says_so() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="never comes"):
        run_virtual(forever())


def test_the_fixed_workload_is_what_the_design_says() -> None:
    graphs = fixed_graphs()
    assert len(graphs) == 16
    assert {graph.kind for graph in graphs} == {"independent", "mixed", "chain"}
    for graph in graphs:
        assert len(PlanGraph(graph.nodes)) >= 2
        assert all(node.max_tokens for node in graph.nodes)
        assert all(node.max_tokens for node in graph.scaled(0.001))
