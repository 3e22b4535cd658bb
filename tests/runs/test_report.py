"""What a caller is billed of a run."""

from __future__ import annotations

import pytest

from plato.engine import SamplingParams
from plato.runs import NO_PLAN, Mode, NodeReport, NodeState, PlanReport, RunReport


def report(plan: PlanReport, *nodes: NodeReport, conversation: int = 14) -> RunReport:
    return RunReport(
        run_id="run-1",
        requested_mode=Mode.AUTO,
        mode=Mode.PLATO,
        reason=None,
        plan=plan,
        nodes=nodes,
        prompt_tokens=0,
        cached_tokens=0,
        output_tokens=0,
        duration_s=1.0,
        sampling=SamplingParams(),
        conversation_tokens=conversation,
    )


def node(number: int, prompt: int, cached: int, started_s: float | None = 0.5) -> NodeReport:
    return NodeReport(
        number,
        "",
        (),
        NodeState.DONE,
        started_s=started_s,
        prompt_tokens=prompt,
        cached_tokens=cached,
    )


@pytest.mark.parametrize("cached", [0, 5, 13])
def test_of_a_sequential_answer_what_was_cached_was_of_the_conversation(cached: int) -> None:
    assert report(NO_PLAN, node(1, 14, cached)).conversation_cached_tokens == cached


@pytest.mark.parametrize(("computed", "cached"), [(0, 14), (4, 10), (14, 0), (500, 0)])
def test_of_a_plan_all_that_was_computed_may_be_of_the_conversation(
    computed: int, cached: int
) -> None:
    plan = PlanReport("model", prompt_tokens=600, cached_tokens=600 - computed)
    # The parts come later, when the conversation is cached by the run itself.
    assert report(plan, node(1, 50, 49)).conversation_cached_tokens == cached


def test_without_a_plan_of_the_model_the_part_that_began_first_counts() -> None:
    plan = PlanReport("request")
    parts = node(1, 60, 59, started_s=2.0), node(2, 50, 40, started_s=1.0), node(3, 0, 0, None)
    assert report(plan, *parts).conversation_cached_tokens == 4


def test_a_run_that_began_nothing_has_nothing_cached() -> None:
    assert report(NO_PLAN, conversation=0).conversation_cached_tokens == 0
