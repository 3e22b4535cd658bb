"""The benchmarks' arithmetic."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.common.statistics import bootstrap, percentile, spread
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
    low, high = bootstrap([1.0, 2.0, 3.0, 4.0])
    assert 1.0 <= low < 2.5 < high <= 4.0
    assert bootstrap([2.0, 2.0]) == (2.0, 2.0)


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
