"""Reports at any moment of a run, also of runs that end in the middle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from plato.reporting import RunTracker

from plato.engine import FinishReason
from plato.runs import (
    Mode,
    ModeChosen,
    Node,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeReport,
    NodeStarted,
    NodeState,
    PlanFinished,
    PlanReport,
)

RUN = "run"
PLAN = PlanReport(source="model", nodes=2, tokens=30, prompt_tokens=100, cached_tokens=60)


def tracker(mode: Mode = Mode.PLATO) -> RunTracker:
    return RunTracker(RUN, mode)


def planned(number: int, at_s: float = 0.1, **fields: Any) -> NodePlanned:
    return NodePlanned(RUN, at_s, Node(number, f"Part {number}"), **fields)


def running(number: int, at_s: float = 0.2) -> NodeReport:
    return NodeReport(
        number,
        f"Part {number}",
        (),
        NodeState.RUNNING,
        planned_s=0.1,
        started_s=at_s,
        prompt_tokens=50,
        attempts=1,
    )


def done(number: int, at_s: float, tokens: int = 10) -> NodeFinished:
    report = replace(
        running(number),
        state=NodeState.DONE,
        first_token_s=0.3,
        finished_s=at_s,
        cached_tokens=40,
        tokens=tokens,
        finish=FinishReason.STOP,
    )
    return NodeFinished(RUN, at_s, number, FinishReason.STOP, report)


def output(number: int, offset: int, count: int, at_s: float = 0.4, attempt: int = 0) -> NodeOutput:
    return NodeOutput(RUN, at_s, number, attempt, offset, tuple(range(count)), "x" * count)


def test_sums_cover_plan_and_parts() -> None:
    run = tracker()
    for event in (
        ModeChosen(RUN, 0.1, Mode.PLATO),
        planned(1),
        planned(2),
        PlanFinished(RUN, 0.2, PLAN),
        NodeStarted(RUN, 0.2, 1, 0, running(1)),
        NodeStarted(RUN, 0.2, 2, 0, running(2)),
        done(2, 0.8),
        done(1, 0.7),
    ):
        run.feed(event)
    report = run.report(("context store",))
    assert report.mode is Mode.PLATO
    assert report.plan == PLAN
    assert [node.number for node in report.nodes] == [1, 2]
    assert (report.prompt_tokens, report.cached_tokens, report.output_tokens) == (200, 140, 20)
    assert report.duration_s == 0.8
    assert report.degraded == ("context store",)


def test_a_run_that_waited_for_its_deadline_took_until_then() -> None:
    run = tracker()
    run.feed(planned(1, at_s=0.1))
    assert run.report(ended_s=5.0).duration_s == 5.0


def test_what_has_not_ended_counts_as_cancelled_with_the_tokens_it_had() -> None:
    run = tracker()
    run.feed(planned(1))
    run.feed(planned(2))
    run.feed(NodeStarted(RUN, 0.2, 1, 0, running(1)))
    run.feed(output(1, 0, 4, at_s=0.4))
    run.feed(output(1, 4, 3, at_s=0.5))
    first, second = run.report().nodes
    assert (first.state, first.tokens, first.first_token_s) == (NodeState.CANCELLED, 7, 0.4)
    assert (second.state, second.tokens, second.started_s) == (NodeState.CANCELLED, 0, None)
    assert run.report().output_tokens == 7


def test_tokens_of_a_repeated_attempt_count_once() -> None:
    run = tracker()
    run.feed(planned(1))
    run.feed(NodeStarted(RUN, 0.2, 1, 0, running(1)))
    run.feed(output(1, 0, 6))
    run.feed(output(1, 2, 3, attempt=1))
    assert run.report().output_tokens == 6


def test_a_failed_part_stays_failed() -> None:
    run = tracker()
    run.feed(planned(1))
    run.failed(replace(running(1), state=NodeState.FAILED))
    assert run.report().nodes[0].state is NodeState.FAILED


def test_a_run_that_ends_before_its_plan_reports_the_plan_so_far() -> None:
    run = tracker()
    so_far = PlanReport(source="model", nodes=1, tokens=12, prompt_tokens=100)
    run.feed(planned(1, plan=so_far))
    assert run.report().plan == so_far
    run.feed(PlanFinished(RUN, 0.2, PLAN))
    assert run.report().plan == PLAN


def test_a_sequential_answer_replaces_what_a_plan_had_begun() -> None:
    run = tracker(Mode.AUTO)
    assert run.mode is Mode.AUTO
    run.feed(planned(1))
    run.feed(ModeChosen(RUN, 0.2, Mode.SEQUENTIAL, "the planner failed"))
    run.feed(NodePlanned(RUN, 0.2, Node(1, "Answer")))
    run.feed(PlanFinished(RUN, 0.2, PLAN))
    report = run.report()
    assert (report.requested_mode, report.mode) == (Mode.AUTO, Mode.SEQUENTIAL)
    assert report.reason == "the planner failed"
    assert [node.title for node in report.nodes] == ["Answer"]


def test_reasons_are_told_once_each() -> None:
    run = tracker(Mode.AUTO)
    run.feed(ModeChosen(RUN, 0.2, Mode.PLATO, "busy"))
    run.feed(PlanFinished(RUN, 0.2, PLAN, "busy"))
    assert run.reason == "busy"
    run.feed(PlanFinished(RUN, 0.2, PLAN, "late"))
    assert run.reason == "busy; late"


def test_it_is_settled_when_no_part_can_come_and_none_is_open() -> None:
    run = tracker()
    run.feed(planned(1))
    run.feed(done(1, 0.5))
    assert not run.settled
    run.feed(PlanFinished(RUN, 0.6, PLAN))
    assert run.settled
    run.feed(planned(2))
    assert not run.settled
