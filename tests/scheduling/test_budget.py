"""Budgets depend on the request alone, never on how much of the plan is known."""

from __future__ import annotations

import pytest

from plato.runs import Mode, Node
from plato.scheduling.budget import node_budget, sequential_budget
from tests.scheduling.helpers import parts, question

PART = Node(1, "Salt")


def test_a_budget_of_the_parts_own_wins() -> None:
    part = Node(1, "Salt", max_tokens=7)
    assert node_budget(question(max_tokens=4), part, 256) == 7


def test_without_a_bound_every_part_gets_the_deployments() -> None:
    assert node_budget(question(), PART, 256) == 256


@pytest.mark.parametrize(("max_tokens", "budget"), [(1, 1), (5, 3), (100, 50), (5000, 256)])
def test_a_part_of_a_plan_to_be_decoded_gets_half_of_the_answer(
    max_tokens: int, budget: int
) -> None:
    assert node_budget(question(max_tokens=max_tokens), PART, 256) == budget


def test_a_plan_handed_in_is_split_evenly_and_covers_the_answer() -> None:
    plan = parts((), (), ())
    budget = node_budget(question(max_tokens=100, plan=plan), plan[0], 256)
    assert budget == 34
    assert budget * len(plan) >= 100


def test_a_sequential_answer_gets_what_was_asked_for_within_the_context() -> None:
    asked = question(Mode.SEQUENTIAL, max_tokens=100)
    assert sequential_budget(asked, default=1024, room=500) == 100
    assert sequential_budget(asked, default=1024, room=60) == 60
    assert sequential_budget(question(Mode.SEQUENTIAL), default=1024, room=5000) == 1024


def test_the_only_part_of_a_plan_keeps_its_budget() -> None:
    assert sequential_budget(question(plan=parts((), max_tokens=40)), 1024, room=500) == 40
    assert sequential_budget(question(plan=parts((), (), max_tokens=40)), 1024, room=500) == 500
