"""Budgets depend on the request alone, never on how much of the plan is known."""

from __future__ import annotations

import pytest

from plato.runs import Length, Mode, Node
from plato.scheduling.budget import (
    node_budget,
    planned_parts,
    sequential_budget,
    too_short_to_split,
)
from plato.settings import Settings
from tests.scheduling.helpers import parts, question

PART = Node(1, "Salt")
SETTINGS = Settings(node_max_tokens=256, plan_parts=3)


def test_a_budget_of_the_parts_own_wins() -> None:
    part = Node(1, "Salt", max_tokens=7)
    assert node_budget(question(max_tokens=4), part, SETTINGS) == 7


def test_without_a_bound_every_part_gets_the_deployments() -> None:
    assert node_budget(question(), PART, SETTINGS) == 256


@pytest.mark.parametrize(
    ("max_tokens", "budget"),
    [(1, 1), (5, 3), (100, 50), (143, 72), (144, 48), (200, 67), (5000, 256)],
)
def test_a_part_of_a_plan_to_be_decoded_gets_the_share_of_one_of_the_parts_asked_for(
    max_tokens: int, budget: int
) -> None:
    assert node_budget(question(max_tokens=max_tokens), PART, SETTINGS) == budget


def test_more_parts_asked_for_share_the_same_answer() -> None:
    six = SETTINGS.model_copy(update={"plan_parts": 6})
    assert node_budget(question(max_tokens=300), PART, six) == 50
    assert node_budget(question(max_tokens=300, max_nodes=4), PART, six) == 75


def test_a_plan_handed_in_is_split_evenly_and_covers_the_answer() -> None:
    plan = parts((), (), ())
    budget = node_budget(question(max_tokens=100, plan=plan), plan[0], SETTINGS)
    assert budget == 34
    assert budget * len(plan) >= 100


def test_a_plan_handed_in_is_shared_by_the_lengths_of_its_parts() -> None:
    lengths = (Length.SHORT, None, Length.MEDIUM, Length.LONG)
    plan = tuple(
        Node(number, "Salt", length=length) for number, length in enumerate(lengths, start=1)
    )
    asked = question(max_tokens=90, plan=plan)
    assert [node_budget(asked, part, SETTINGS) for part in plan] == [10, 20, 20, 40]
    low = SETTINGS.model_copy(update={"node_max_tokens": 30})
    assert [node_budget(asked, part, low) for part in plan] == [10, 20, 20, 30]


@pytest.mark.parametrize(
    ("max_tokens", "asked_for"),
    [(None, 6), (1, 2), (95, 2), (143, 2), (144, 3), (239, 4), (300, 6), (5000, 6)],
)
def test_the_model_is_asked_for_as_many_parts_as_get_a_few_sentences(
    max_tokens: int | None, asked_for: int
) -> None:
    six = SETTINGS.model_copy(update={"plan_parts": 6})
    assert planned_parts(question(max_tokens=max_tokens), six) == asked_for


@pytest.mark.parametrize("max_tokens", [None, 5000])
@pytest.mark.parametrize(("max_nodes", "asked_for"), [(2, 2), (3, 3), (8, 3)])
def test_the_model_is_asked_for_the_deployments_number_of_parts_within_the_callers(
    max_tokens: int | None, max_nodes: int, asked_for: int
) -> None:
    asked = question(max_tokens=max_tokens, max_nodes=max_nodes)
    assert planned_parts(asked, SETTINGS) == asked_for


def test_a_plan_handed_in_keeps_its_parts() -> None:
    asked = question(max_tokens=100, plan=parts((), (), (), (), ()))
    assert planned_parts(asked, SETTINGS) == 5


@pytest.mark.parametrize(
    ("max_tokens", "short"), [(None, False), (2, True), (95, True), (96, False)]
)
def test_what_is_too_short_for_two_parts_is_not_split(max_tokens: int | None, short: bool) -> None:
    assert too_short_to_split(question(max_tokens=max_tokens)) == short


def test_a_sequential_answer_gets_what_was_asked_for_within_the_context() -> None:
    asked = question(Mode.SEQUENTIAL, max_tokens=100)
    assert sequential_budget(asked, default=1024, room=500) == 100
    assert sequential_budget(asked, default=1024, room=60) == 60
    assert sequential_budget(question(Mode.SEQUENTIAL), default=1024, room=5000) == 1024


def test_the_only_part_of_a_plan_keeps_its_budget() -> None:
    assert sequential_budget(question(plan=parts((), max_tokens=40)), 1024, room=500) == 40
    assert sequential_budget(question(plan=parts((), (), max_tokens=40)), 1024, room=500) == 500
