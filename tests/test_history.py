"""What is kept of a run says the same as all of its events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from plato.history import History

from plato.engine import FinishReason
from plato.runs import (
    BEFORE_ALL,
    EventId,
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
    RunEvent,
)

PLAN = PlanReport("model", nodes=2, tokens=20)


def report(number: int, tokens: int = 0) -> NodeReport:
    return NodeReport(number, f"Part {number}", (), NodeState.RUNNING, tokens=tokens)


def output(number: int, offset: int, text: str, at: int, *, end: bool = False) -> NodeOutput:
    """One token a character."""
    return NodeOutput(
        "r",
        float(at),
        number,
        0,
        offset,
        tuple(map(ord, text)),
        text,
        finish=FinishReason.STOP if end else None,
        id=EventId(1, at),
    )


EVENTS: tuple[RunEvent, ...] = (
    NodePlanned("r", 0.0, Node(1, "One"), plan_tokens=(1, 2), id=EventId(1, 0)),
    NodeStarted("r", 1.0, 1, 0, report(1), id=EventId(1, 1)),
    ModeChosen("r", 2.0, Mode.PLATO, id=EventId(1, 2)),
    output(1, 0, "ab", 3),
    NodePlanned("r", 4.0, Node(2, "Two", (1,)), plan_tokens=(1, 2, 3), id=EventId(1, 4)),
    output(1, 2, "cd", 5),
    PlanFinished("r", 6.0, PLAN, id=EventId(1, 6)),
    output(1, 4, "e", 7, end=True),
    NodeFinished("r", 8.0, 1, FinishReason.STOP, report(1, 5), id=EventId(1, 8)),
    NodeStarted("r", 9.0, 2, 0, report(2), id=EventId(1, 9)),
    output(2, 0, "xy", 10),
    NodeStarted("r", 11.0, 2, 1, report(2), "died", id=EventId(1, 11)),
    output(2, 2, "z", 12),
)


def facts(history: History) -> tuple[object, ...]:
    return (
        history.mode,
        history.nodes,
        history.plan_complete,
        history.plan,
        history.plan_tokens,
        [(o.tokens, o.text, o.finish) for n in (1, 2) if (o := history.output(n))],
        [history.attempts(n) for n in (1, 2)],
        [history.finished(n) for n in (1, 2)],
        history.ended,
    )


@given(st.integers(0, len(EVENTS)))
def test_the_condensed_events_say_the_same_as_all(count: int) -> None:
    history = History(EVENTS[:count])
    assert facts(History(history.events())) == facts(history)


@given(st.integers(0, len(EVENTS)), st.integers(0, len(EVENTS)))
def test_going_on_from_condensed_events_is_as_if_nothing_had_been_condensed(
    first: int, second: int
) -> None:
    start, stop = sorted((first, second))
    history = History(History(EVENTS[:start]).events())
    for event in EVENTS[start:stop]:
        history.feed(event)
    assert facts(history) == facts(History(EVENTS[:stop]))
    assert history.last_id == (EVENTS[stop - 1].id if stop else BEFORE_ALL)


@given(st.data())
def test_repetitions_change_nothing(data: st.DataObject) -> None:
    history = History()
    for index, event in enumerate(EVENTS):
        history.feed(event)
        history.feed(EVENTS[data.draw(st.integers(0, index))])
    assert facts(history) == facts(History(EVENTS))


def test_all_of_a_node_in_one_piece_fills_a_gap() -> None:
    history = History([output(1, 0, "ab", 1), output(1, 4, "e", 3)])
    found = history.output(1)
    assert found is not None
    assert found.text == "ab"
    history.feed(output(1, 0, "abcde", 4, end=True))
    found = history.output(1)
    assert found is not None
    assert (found.text, found.finish) == ("abcde", FinishReason.STOP)


def test_a_scheduler_that_goes_on_from_less_than_is_known_is_followed_all_the_same() -> None:
    history = History([output(1, 0, "ab", 1), output(1, 2, "cd", 2), output(1, 4, "ef", 3)])
    history.feed(output(1, 2, "cd", 4))
    history.feed(output(1, 4, "efg", 5, end=True))
    found = history.output(1)
    assert found is not None
    assert (found.text, found.tokens) == ("abcdefg", tuple(map(ord, "abcdefg")))
    assert found.finish is FinishReason.STOP


def test_a_node_is_not_finished_while_some_of_it_is_missing() -> None:
    history = History([output(1, 0, "ab", 1)])
    history.feed(NodeFinished("r", 2.0, 1, FinishReason.STOP, report(1, 4), id=EventId(1, 2)))
    found = history.output(1)
    assert found is not None
    assert found.finish is None
    assert history.finished(1) is None
    history.feed(output(1, 0, "abcd", 3, end=True))
    found = history.output(1)
    assert found is not None
    assert found.finish is FinishReason.STOP


def test_a_sequential_answer_replaces_what_a_plan_had_begun() -> None:
    history = History(EVENTS[:5])
    history.feed(ModeChosen("r", 5.0, Mode.SEQUENTIAL, "the plan broke", id=EventId(1, 5)))
    assert history.nodes == ()
    assert history.output(1) is None
