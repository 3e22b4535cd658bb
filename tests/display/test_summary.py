"""The summary of a finished run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from plato.api.answers.run_info import PlatoInfo
from plato.display import summary
from plato.engine import SamplingParams
from plato.runs import Mode, NodeReport, NodeState, PlanReport, RunReport
from tests.display.shown import shown

FIRST = NodeReport(
    number=1,
    title="A title of the greatest length that one can be, sixty letters",
    dependencies=(),
    state=NodeState.DONE,
    started_s=1.234,
    first_token_s=123.456,
    finished_s=1234.5,
    tokens=256,
    answer_tokens=256,
    prompt_tokens=8192,
    cached_tokens=8191,
)
SECOND = replace(FIRST, number=2, title="Depth", dependencies=(1,), sees=(1,), finished_s=None)
REPORT = RunReport(
    run_id="r1",
    requested_mode=Mode.PLATO,
    mode=Mode.PLATO,
    reason=None,
    plan=PlanReport("model", 2, tokens=40, steps=30, finished_s=3.4),
    nodes=(FIRST, SECOND),
    prompt_tokens=16384,
    cached_tokens=16382,
    output_tokens=512,
    duration_s=1234.5,
    sampling=SamplingParams(),
    first_text_s=1.2,
)


def summed_up(width: int = 80, **fields: Any) -> str:
    return shown(summary(PlatoInfo.of(replace(REPORT, **fields))), width)


def noted(*nodes: NodeReport) -> list[str]:
    lines = summed_up(width=200, nodes=nodes).splitlines()
    return [line.removeprefix("note: ") for line in lines if line.startswith("note: ")]


def part(number: int, **fields: Any) -> NodeReport:
    return NodeReport(number, f"Part {number}", (), NodeState.DONE, **fields)


def test_the_graph_and_all_figures_fit_an_ordinary_terminal() -> None:
    text = summed_up()
    assert "✓ 2 Depth  needs 1" in text
    for figure in ("1.23", "123.46", "1234.50", "256", "8192", "8191", "cached"):
        assert figure in text
    assert max(map(len, text.splitlines())) <= 80
    assert "mode plato, 1234.5 s, first text after 1.2 s" in text
    assert "plan 3.4 s (40 tokens in 30 steps)" in text
    assert "note" not in text


def test_a_sequential_answer_says_why_and_has_no_graph() -> None:
    text = summed_up(
        mode=Mode.SEQUENTIAL,
        reason="the planner failed",
        degraded=("context store",),
        plan=PlanReport("none"),
        nodes=(FIRST,),
        first_text_s=None,
    )
    assert "note: the planner failed" in text
    assert "note: no context store" in text
    assert "plan" not in text.replace("planner", "")
    assert "first text" not in text
    assert FIRST.title not in text


def test_parts_that_used_up_their_budgets_are_named_with_it() -> None:
    cut = [part(n, tokens=96, answer_tokens=96, cut="budget") for n in (1, 2, 3)]
    longer = part(4, tokens=120, answer_tokens=120, cut="budget")
    assert noted(*cut, longer) == [
        "parts 1-3 were cut at 96 tokens",
        "part 4 was cut at 120 tokens",
    ]
    assert noted(cut[0]) == ["the answer was cut at 96 tokens"]


def test_what_max_tokens_cut_is_named_with_it() -> None:
    assert noted(
        part(1, tokens=30, answer_tokens=30),
        part(2, tokens=20, answer_tokens=10, cut="max_tokens"),
        part(3, tokens=5, cut="max_tokens"),
        part(4, cut="max_tokens"),
    ) == [
        "the answer reached its max_tokens of 40: part 2 was cut at 10 tokens, "
        "parts 3, 4 were left out"
    ]


def test_texts_that_a_prompt_had_no_room_for_are_named() -> None:
    last = part(4, sees=(1, 3), shortened=(1, 2))
    assert noted(part(1), part(2), part(3), last) == [
        "part 1 was shortened in the prompt of part 4 to make it fit",
        "part 2 was left out of the prompt of part 4 to make it fit",
    ]


def test_fields_that_were_ignored_are_named() -> None:
    assert "note: ignored: temprature, tools" in summed_up(ignored=("temprature", "tools"))
