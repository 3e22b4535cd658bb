"""Open-loop load: what arrives, what becomes of it, and the figures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from benchmarks.answering.asking import AUTO, PLATO, SEQUENTIAL
from benchmarks.answering.questions import Question
from benchmarks.common.paced_upstream import MODEL, paced_upstream
from benchmarks.load.arrivals import SHORT, SHORT_TOKENS, Arrival, arrivals, is_short
from benchmarks.load.driver import play, saturate
from benchmarks.load.metrics import Targets, metrics, row
from benchmarks.load.outcomes import Outcome, Played
from benchmarks.load.systems import System, in_process, paced, served
from benchmarks.plots import plot_load
from benchmarks.publish import load
from plato.runs import Node
from plato.settings import Settings

in_one_loop = pytest.mark.asyncio(loop_scope="module")
"""For what shares a runtime."""
TARGETS = Targets(first_text_s=1.0, alone_s=0.1)
PACE = {"step_ms": ((1, 1.0), (16, 2.0)), "prefill_tokens_per_s": 1e6}
LONG = Question(
    "long", "mixed", "What is a line?", (Node(1, "Left", (), 8), Node(2, "Right", (), 8))
)
BRIEF = Question("brief", SHORT, "What is tea?", (Node(1, "Answer", (), 6),))


def fast(folder: str, **values: Any) -> Settings:
    update = {"model": folder, "kv_budget_mb": 64, "engine_options": {"pace": PACE}, **values}
    return paced(2).model_copy(update=update)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tiny_model_folder: str) -> AsyncIterator[System]:
    async with in_process(fast(tiny_model_folder)) as opened:
        yield opened


def test_the_same_seed_gives_the_same_questions_at_the_same_times() -> None:
    first, second, other = (list(islice(arrivals(seed, 0.5), 400)) for seed in (1, 1, 2))
    assert first == second != other
    assert first[-1].at / len(first) == pytest.approx(1.0, rel=0.15)
    assert sum(is_short(arrival.question) for arrival in first) == 200
    assert {a.question.tokens for a in first if is_short(a.question)} == {SHORT_TOKENS}
    assert all(is_short(arrival.question) for arrival in islice(arrivals(1, 0.0), 20))


@in_one_loop
async def test_every_way_does_the_same_work_on_several_decoders(system: System) -> None:
    assert system.at_once == 128
    for way in (SEQUENTIAL, PLATO, AUTO):
        played = await saturate(system, way, [LONG, BRIEF, LONG, BRIEF])
        assert sorted(one.tokens for one in played.outcomes) == [6, 6, 16, 16]
        assert [one.failure for one in played.outcomes] == [None] * 4
        planned = {one.question.name for one in played.outcomes if one.planned}
        if way is not AUTO:
            assert planned == (set() if way is SEQUENTIAL else {"long"})


@in_one_loop
async def test_questions_are_asked_when_they_are_due_and_not_when_others_end(
    system: System,
) -> None:
    arriving = [Arrival(float(number), BRIEF) for number in range(6)]
    played = await play(system, SEQUENTIAL, arriving, rate=1000.0)
    assert [one.due_s for one in played.outcomes] == pytest.approx([n / 1000 for n in range(6)])
    # A token takes 1 ms: nobody is answered before the last one is due.
    assert min(one.due_s + one.latency_s for one in played.outcomes) > 0.005
    assert all(0 <= one.late_s <= one.first_text_s <= one.latency_s for one in played.outcomes)
    assert 0 < played.cpu_share <= 1.1


async def test_refused_questions_count(tiny_model_folder: str) -> None:
    settings = fast(tiny_model_folder, max_runs=1, max_waiting_runs=0)
    async with in_process(settings) as narrow:
        played = await play(narrow, SEQUENTIAL, [Arrival(0.0, BRIEF), Arrival(1.0, BRIEF)], 1000.0)
    assert [one.refused for one in played.outcomes] == [False, True]
    found = row(0, 1.0, SEQUENTIAL.name, played, TARGETS)
    assert (found["questions"], found["refused"], found["failed"]) == (2, 1, 0)
    assert found["goodput_1_per_s"] == pytest.approx(1 / played.window_s)


async def test_an_answer_of_another_length_is_a_failure(tiny_model_folder: str) -> None:
    settings = fast(tiny_model_folder, sequential_max_tokens=3)
    async with in_process(settings) as opened:
        unbounded = Question("unbounded", "", "What is tea?")
        played = await saturate(opened, SEQUENTIAL, [unbounded])
    assert played.outcomes[0].failure is not None
    assert "tokens, and not 0" in played.outcomes[0].failure


async def test_a_server_of_others_answers_sequentially_only() -> None:
    with paced_upstream() as url:
        async with served(url, None, at_once=2) as system:
            assert (system.model, system.ways, system.equal_work) == (MODEL, (SEQUENTIAL,), False)
            played = await play(system, SEQUENTIAL, [Arrival(0.0, BRIEF), Arrival(1.0, LONG)], 20.0)
    assert all(one.answered and one.first_text_s for one in played.outcomes)
    found = metrics([row(0, 1.0, SEQUENTIAL.name, played, TARGETS)])
    assert found["failed"] == 0
    assert "throughput_over_best" not in found


def outcome(question: Question = BRIEF, **fields: Any) -> Outcome:
    known = {"due_s": 0.0, "late_s": 0.0, "latency_s": 1.0, "first_text_s": 0.5, "tokens": 6}
    return Outcome(question, **(known | fields))


def test_goodput_counts_answers_within_both_targets() -> None:
    outcomes = (
        outcome(),
        outcome(first_text_s=1.1, latency_s=1.2),
        outcome(latency_s=1.6),
        outcome(LONG, tokens=16, latency_s=2.0),
        outcome(LONG, tokens=16, latency_s=2.1),
        outcome(due_s=4.0, refused=True),
        outcome(failure="it broke"),
    )
    found = row(3, 0.8, AUTO.name, Played(outcomes, 0.1), TARGETS)
    assert (found["window_s"], found["makespan_s"]) == (4.0, 5.0)
    # Short answers may take 0.2 s for a token, the others 0.05, 0.1 or 0.2 s.
    assert [found[f"goodput_{slack}_per_s"] for slack in ("0.5", "1", "2")] == [0.25, 0.5, 0.75]
    assert (found["refused"], found["failed"]) == (1, 1)
    assert found["latency_p50_s"] == 1.6
    assert found["sequential_latency_p50_s"] == 1.2


def test_tokens_count_while_questions_arrive_and_the_system_is_full() -> None:
    outcomes = (
        outcome(),  # Before it is full.
        outcome(LONG, tokens=20, latency_s=2.5),  # From 0.5 to 2.5 s.
        outcome(due_s=3.5, tokens=9),  # Its first text comes with the last question.
        outcome(due_s=4.0),
        outcome(failure="it broke"),
        outcome(due_s=1.0, first_text_s=1.0),  # All at once.
    )
    played = Played(outcomes, 0.1)
    assert [one.tokens_until(1.0) for one in outcomes] == [6, 5, 0, 0, 0, 0]
    assert played.tokens_per_s == (15 + 6) / 3


def rows(**by_way: tuple[float, ...]) -> list[dict[str, Any]]:
    """One row for each way and seed, whose times and rates are all the same number."""
    found = []
    for way, numbers in by_way.items():
        for seed, number in enumerate(numbers):
            played = Played((outcome(), outcome(due_s=1.0)), 0.1)
            one = row(seed, 1.0, way, played, TARGETS)
            times = {name: number for name in one if name.endswith("_s")}
            found.append(one | times)
    return found


def test_ratios_are_of_means_over_seeds_with_their_interval() -> None:
    found = metrics(rows(sequential=(10.0, 30.0), plato=(5.0, 25.0), auto=(20.0, 30.0)))
    assert found["throughput_over_best"] == {"1": 1.25}
    assert found["goodput_over_best_1"] == {"1": 1.25}
    assert found["sequential_p99_ratio"] == {"1": 1.25}
    assert found["throughput_over_best_interval"] == {"1": (1.0, 2.0)}


def test_nothing_to_divide_by_is_no_figure() -> None:
    found = metrics(rows(sequential=(0.0,), plato=(0.0,), auto=(1.0,)))
    assert found["goodput_over_best_0.5"] == {"1": None}
    assert found["goodput_over_best_0.5_interval"] == {"1": (None, None)}


def test_the_plot_leaves_out_what_was_not_answered(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    measured = rows(sequential=(10.0, 30.0), plato=(1.0, 2.0), auto=(20.0, 30.0))
    measured[0]["latency_p99_s"] = None
    plot_load(measured, tmp_path, "load")
    assert {file.name for file in tmp_path.iterdir()} == {"load.png", "load.svg"}


def test_the_section_of_the_report_has_every_rate_and_way() -> None:
    measured = rows(sequential=(10.0, 30.0), plato=(0.0, 0.0), auto=(20.0, 30.0))
    section = load(
        "load",
        {
            "benchmark": "load",
            "model": "tiny",
            "machine": {"gpu": None, "cpu": "some", "cores": 2, "torch": "2"},
            "settings": {
                "first_text_target_s": 1.0,
                "token_alone_s": 0.1,
                "seeds": 2,
                "long_share": 0.5,
            },
            "rows": measured,
            "metrics": metrics(measured),
        },
    )
    assert "| 1 | 1.25 (1.00 to 2.00) |" in section
    for way in ("sequential", "plato", "auto"):
        assert f"| 1 | {way} |" in section
