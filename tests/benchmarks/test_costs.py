"""Costs where Plato cannot help, and ratios to other servers: the arithmetic."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.answering.calibration import fastest
from benchmarks.peers import metrics as peer_metrics
from benchmarks.worst_case import metrics
from plato.testing.paced import Pace


def row(case: str, way: str, latency_s: float, **fields: Any) -> dict[str, Any]:
    return {
        "case": case,
        "question": case,
        "way": way,
        "repeat": 0,
        "tokens": 100,
        "mode": "sequential",
        "latency_s": latency_s,
        "before_parts_s": 0.0,
        "tokens_per_s": 100 / latency_s,
        **fields,
    }


ROWS = [
    row("chain", "sequential", 10.0),
    row("chain", "plato", 10.5, mode="plato"),
    row("unsplit", "sequential", 4.0),
    row("unsplit", "auto", 4.2, before_parts_s=0.1),
    row("full", "sequential", 1.0),
    row("full", "plato", 2.0, mode="plato"),
]


def test_costs_are_shares_of_the_sequential_time() -> None:
    found = metrics(ROWS)
    assert found["chain_cost"] == pytest.approx(0.05)
    assert found["unsplit_cost"] == pytest.approx(0.025)
    assert found["decision_s"] == pytest.approx(0.1)
    assert found["full_throughput_ratio"] == pytest.approx(0.5)


def test_a_question_that_was_split_after_all_does_not_count() -> None:
    split = {**row("unsplit", "auto", 1.0, mode="plato"), "question": "other"}
    base = {**row("unsplit", "sequential", 4.0), "question": "other"}
    assert metrics([*ROWS, base, split])["unsplit_questions"] == 1


def test_unequal_work_is_an_error() -> None:
    rows = [*ROWS[:3], row("unsplit", "auto", 4.2, tokens=90), *ROWS[4:]]
    with pytest.raises(RuntimeError, match="90 and 100"):
        metrics(rows)


def test_peers_are_compared_question_by_question() -> None:
    rates = {"Plato, plato": (60.0, 30.0), "other": (20.0, 30.0)}
    rows = [
        {"server": server, "question": str(number), "tokens_per_s": rate}
        for server, found in rates.items()
        for number, rate in enumerate(found)
    ]
    assert peer_metrics(rows) == {"over other": 2.0}


def test_a_bound_takes_the_best_of_every_figure() -> None:
    slow = Pace(step_ms=((1, 12.0), (2, 15.0)), prefill_tokens_per_s=900.0)
    fast = Pace(step_ms=((1, 11.0), (2, 16.0)), prefill_tokens_per_s=800.0)
    best = fastest([slow, fast])
    assert best.step_ms == ((1, 11.0), (2, 15.0))
    assert best.prefill_tokens_per_s == 900.0
