"""Marks where an answer was cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from plato.api.answers.run_info import PlatoInfo
from plato.display import mark_cuts
from plato.runs import NodeReport, NodeState
from tests.runs.examples import REPORT

TEXTS = {1: " The sea ", 2: "is salt", 3: "because"}
ANSWER = "## Sea\n\nThe sea\n\nis salt\n\nbecause"


def marked(answer: str = ANSWER, **cuts: Any) -> str:
    nodes = [
        NodeReport(number, "", (), NodeState.DONE, cut=cuts.get(f"part_{number}"))
        for number in TEXTS
    ]
    return mark_cuts(answer, TEXTS, PlatoInfo.of(replace(REPORT, nodes=tuple(nodes))))


def test_a_whole_answer_stays_as_it_is() -> None:
    assert marked() == ANSWER


def test_each_part_that_was_cut_is_marked_at_its_end() -> None:
    assert marked(part_1="budget", part_3="budget") == (
        "## Sea\n\nThe sea […]\n\nis salt\n\nbecause […]"
    )


def test_an_answer_that_reached_its_limit_is_marked_at_its_end() -> None:
    cut = "## Sea\n\nThe sea\n\nis"
    assert marked(cut, part_2="max_tokens", part_3="max_tokens") == f"{cut} […]"


def test_text_that_is_not_as_it_was_decoded_is_not_marked() -> None:
    assert marked("something else", part_1="budget") == "something else"
