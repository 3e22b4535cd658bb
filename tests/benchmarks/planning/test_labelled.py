"""Labelled plans from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common.rows import InputError
from benchmarks.planning.labelled import LabelledPlan, questions_of, read_plans, sample
from plato.runs import Node

PLANS = [LabelledPlan(f"How to count to {n % 30}", "chain", (Node(1, str(n)),)) for n in range(40)]


def file_of(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "plans.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def parts(*needs: list[int]) -> list[dict[str, Any]]:
    return [{"title": "Mix", "dependencies": each, "minutes": 5.0} for each in needs]


def test_plans_are_read_with_dependencies_in_ascending_order(tmp_path: Path) -> None:
    row = {"task": "How to bake", "kind": "mixed", "parts": parts([], [1], [2, 1])}
    (plan,) = read_plans(file_of(tmp_path, row))
    assert plan.kind == "mixed"
    assert plan.nodes == (Node(1, "Mix"), Node(2, "Mix", (1,)), Node(3, "Mix", (1, 2)))
    assert plan.question.text == "How to bake?"


@pytest.mark.parametrize(
    ("needs", "message"),
    [(parts([], [3]), "part 2 depends on part 3"), ([], "the task has no parts")],
)
def test_what_is_no_plan_is_refused_with_its_line(
    tmp_path: Path, needs: list[dict[str, Any]], message: str
) -> None:
    good = {"task": "How to bake", "kind": "chain", "parts": parts([])}
    with pytest.raises(InputError, match=f"line 2: {message}"):
        read_plans(file_of(tmp_path, good, {"task": "x", "kind": "x", "parts": needs}))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no tasks"):
        read_plans(file_of(tmp_path))


def test_plans_of_one_task_are_in_one_half_and_in_one_sample() -> None:
    twice = LabelledPlan("how to  count to 7", "mixed", ())
    assert twice.side == PLANS[7].side
    assert {plan.side for plan in PLANS} == {"calibration", "held_out"}
    for seed in range(10):
        drawn = sample(PLANS, 6, seed)
        tasks = {plan.task for plan in drawn}
        assert len(tasks) == 6
        assert drawn == [plan for plan in PLANS if plan.task in tasks]


def test_a_sample_is_that_of_its_seed() -> None:
    assert sample(PLANS, 6, seed=1) == sample(PLANS, 6, seed=1) != sample(PLANS, 6, seed=2)
    assert sample(PLANS, None, seed=1) == sample(PLANS, 30, seed=1) == PLANS


def test_every_task_is_asked_once() -> None:
    texts = [question.text for question in questions_of(PLANS)]
    assert texts == [f"How to count to {number}?" for number in range(30)]
