"""Measures of plans that can be counted by hand."""

from __future__ import annotations

import pytest

from benchmarks.planning.plans import OwnPlan, describe, evaluate
from plato.runs import Node


def plan(*titles: str, source: str = "questions", refused: str | None = None) -> OwnPlan:
    nodes = tuple(Node(number, title) for number, title in enumerate(titles, start=1))
    return OwnPlan(source, "Why?", nodes, followed=len(nodes) > 1, refused=refused)


def test_debris_repetition_and_too_few_parts_are_degenerate() -> None:
    assert plan("Soil", "Water").problems == ()
    assert plan("Soil", "1,2,3,4,5").problems == ("debris",)
    assert plan("Soil", "Water", "SOIL").problems == ("repeated",)
    assert plan("Soil").problems == ("too_few_parts",)


def test_a_refused_line_counts_as_the_model_wrote_it() -> None:
    assert plan("Soil", "Water", refused="soil").problems == ("repeated",)
    assert plan("Soil", refused="Water the").problems == ("debris",)


def test_shares_are_of_all_plans_and_contents_of_those_that_are_followed() -> None:
    followed = OwnPlan(
        "questions",
        "Why?",
        (Node(1, "Cost of solar power"), Node(2, "Cost of wind", (1,)), Node(3, "Choice for us")),
        followed=True,
    )
    trimmed = plan("Soil", "Water", refused="soil")
    thrown_away = plan("Soil", refused="Water the")
    found = describe([followed, trimmed, thrown_away, plan("Sun", "Rain")])
    assert found == {
        "plans": 4,
        "degenerate_share": 1 / 2,
        "debris_share": 1 / 4,
        "repeated_share": 1 / 4,
        "too_few_parts_share": 0,
        "trimmed_share": 1 / 2,
        "guard_share": 1 / 4,
        "with_dependencies_share": pytest.approx(1 / 3),
        "parts": pytest.approx(7 / 3),
        # 4 + 3 + 3, and four titles of one word.
        "title_words": pytest.approx(14 / 7),
    }


def test_nothing_is_said_of_the_contents_of_no_plans() -> None:
    found = describe([plan("Soil")])
    assert found["guard_share"] == 1
    assert "parts" not in found


def test_sources_are_described_apart_and_together() -> None:
    found = evaluate([plan("Soil", "Water"), plan("Soil", source="tasks")])
    assert {source: each["guard_share"] for source, each in found.items()} == {
        "questions": 0,
        "tasks": 1,
        "all": 1 / 2,
    }
