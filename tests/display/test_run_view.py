"""A run on the terminal while it goes on."""

from __future__ import annotations

from plato.display import RunView
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
from tests.display.shown import shown


def planned(number: int, title: str, *dependencies: int) -> NodePlanned:
    return NodePlanned("r1", 0.1, Node(number, title, dependencies))


def started(number: int, title: str) -> NodeStarted:
    return NodeStarted("r1", 0.2, number, 0, NodeReport(number, title, (), NodeState.RUNNING))


def output(number: int, text: str) -> NodeOutput:
    return NodeOutput("r1", 0.3, number, 0, 0, (1,) * len(text), text)


def finished(number: int, title: str, tokens: int) -> NodeFinished:
    report = NodeReport(number, title, (), NodeState.DONE, tokens=tokens)
    return NodeFinished("r1", 0.4, number, FinishReason.STOP, report)


PLAN_FINISHED = PlanFinished("r1", 0.4, PlanReport("model", 2), "late")


def test_parts_are_shown_as_they_grow() -> None:
    view = RunView()
    assert "planning" in shown(view.render())
    view.feed(planned(1, "Salt"))
    view.feed(planned(2, "[b]Depth[/b]", 1))
    view.feed(started(1, "Salt"))
    view.feed(output(1, "It is\n very salty"))
    text = shown(view.render())
    assert "plan (deciding)" in text
    assert "▸ 1 Salt  17 tokens" in text
    assert "It is very salty" in text
    assert "· 2 [b]Depth[/b]  needs 1" in text
    view.feed(ModeChosen("r1", 0.4, Mode.PLATO))
    view.feed(PLAN_FINISHED)
    view.feed(finished(1, "Salt", 17))
    text = shown(view.render())
    assert "plan (plato)" in text
    assert "✓ 1 Salt  17 tokens" in text
    assert "very salty" not in text
    assert "planning" not in text
    assert view.state.report().reason == "late"


def test_of_a_long_part_the_end_is_shown() -> None:
    view = RunView()
    view.feed(started(1, "Salt"))
    view.feed(output(1, "first words, " + "more " * 100 + "last words"))
    text = shown(view.render())
    assert "last words" in text
    assert "first words" not in text
    assert max(map(len, text.splitlines())) <= 80
    # It begins with a whole word.
    assert text.splitlines()[2].split()[0] == "more"


def test_the_end_of_a_text_without_spaces_is_shown() -> None:
    view = RunView()
    view.feed(started(1, "Salt"))
    view.feed(output(1, "盐" * 200))
    assert "盐" * 10 in shown(view.render())


def test_a_plan_alone_shows_no_progress() -> None:
    view = RunView()
    view.feed(planned(1, "Salt"))
    view.feed(started(1, "Salt"))
    view.feed(output(1, "It is"))
    view.feed(PLAN_FINISHED)
    text = shown(view.render(progress=False))
    assert "1 Salt" in text
    assert "tokens" not in text
    assert "It is" not in text
    assert "▸" not in text


def test_a_sequential_answer_forgets_the_plan_before_it() -> None:
    view = RunView()
    view.feed(planned(1, "Salt"))
    view.feed(ModeChosen("r1", 0.2, Mode.SEQUENTIAL, "no plan"))
    view.feed(planned(1, "Answer"))
    text = shown(view.render())
    assert "1 Answer" in text
    assert "Salt" not in text
    assert "planning" not in text
