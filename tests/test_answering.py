"""From a run's events to an answer, without waiting for what nobody will see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import pytest
from plato.answering import Answering
from plato.composing import Answer
from plato.reporting import NO_PLAN, RunTracker

from plato.engine import FinishReason
from plato.metrics.table import ANSWER_SECONDS, ANSWER_TOKENS, FIRST_TEXT_SECONDS
from plato.runs import (
    Message,
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
    RunError,
    RunEvent,
    RunFailed,
    RunFinished,
    RunRequest,
)
from tests.recording import MemoryRecorder

RUN = "run"


def request(**fields: object) -> RunRequest:
    return RunRequest(RUN, (Message("user", "Why?"),), **fields)  # type: ignore[arg-type]


def begun(*numbers: int) -> list[RunEvent]:
    """A given plan of these parts, all started."""
    events: list[RunEvent] = [NodePlanned(RUN, 0.0, Node(n, f"Part {n}")) for n in numbers]
    events += [ModeChosen(RUN, 0.0, Mode.PLATO), PlanFinished(RUN, 0.0, NO_PLAN)]
    events += [NodeStarted(RUN, 0.1, number, 0, report(number)) for number in numbers]
    return events


def report(number: int) -> NodeReport:
    return NodeReport(number, f"Part {number}", (), NodeState.RUNNING, started_s=0.1)


def written(number: int, text: str, at_s: float = 0.2) -> list[RunEvent]:
    """A part's whole output, a token a character."""
    done = replace(report(number), state=NodeState.DONE, finished_s=at_s, tokens=len(text))
    return [
        NodeOutput(RUN, at_s, number, 0, 0, tuple(range(len(text))), text),
        NodeFinished(RUN, at_s, number, FinishReason.STOP, done),
    ]


def end(events: list[RunEvent]) -> RunFinished:
    tracker = RunTracker(RUN, Mode.AUTO)
    for event in events:
        tracker.feed(event)
    return RunFinished(RUN, 1.0, tracker.report(("context store",)))


class Batches:
    """A run that plays batches, and notes whether it was closed before its end."""

    def __init__(self, *batches: list[RunEvent]) -> None:
        self._batches = batches
        self.played = 0
        self.closed = False

    async def run(self) -> AsyncGenerator[tuple[RunEvent, ...]]:
        try:
            for batch in self._batches:
                self.played += 1
                yield tuple(batch)
        finally:
            self.closed = True


async def answer(answering: Answering, batches: Batches) -> tuple[Answer, list[str]]:
    """The answer, and the texts in the order of their release."""
    texts = []
    async with aclosing(answering.follow(batches.run())) as followed:
        async for _, text in followed:
            texts.append(text)
    return answering.answer(), [text for text in texts if text]


def decode(tokens: tuple[int, ...]) -> str:
    return "x" * len(tokens)


async def test_parts_that_finish_in_any_order_are_one_answer_in_plan_order() -> None:
    events = [*begun(1, 2), *written(2, "second", 0.2), *written(1, "first", 0.3)]
    batches = Batches(events[:4], events[4:], [end(events)])
    whole, texts = await answer(Answering(request(), decode), batches)
    assert whole.text == "".join(texts) == "first\n\nsecond"
    assert whole.finish_reason == "stop"
    assert whole.tokens == len("first") + len("second")
    assert whole.first_text_s == 0.3
    assert whole.report.degraded == ("context store",)


async def test_headings_are_the_titles() -> None:
    events = [*begun(1), *written(1, "first")]
    whole, _ = await answer(
        Answering(request(headings=True), decode), Batches(events, [end(events)])
    )
    assert whole.text == "## Part 1\n\nfirst"


async def test_a_finished_run_is_followed_to_its_report() -> None:
    events = [*begun(1), *written(1, "first")]
    batches = Batches(events, [end(events)])
    whole, _ = await answer(Answering(request(max_tokens=3), decode), batches)
    assert whole.finish_reason == "length"
    assert whole.report.degraded == ("context store",)


async def test_a_failed_run_raises_what_it_said() -> None:
    failure = RunFailed(RUN, 0.5, 504, "server_error", "deadline_exceeded", "too slow", "p", 2.0)
    batches = Batches([*begun(1), *written(1, "first")[:1]], [failure])
    answering = Answering(request(), decode)
    with pytest.raises(RunError, match="too slow") as raised:
        await answer(answering, batches)
    error = raised.value
    assert (error.status, error.code, error.param) == (504, "deadline_exceeded", "p")
    assert error.retry_after_s == 2.0
    assert batches.closed


async def test_leaving_closes_the_run() -> None:
    batches = Batches(begun(1), written(1, "first"))
    async with aclosing(Answering(request(), decode).follow(batches.run())) as followed:
        async for _ in followed:
            break
    assert batches.closed


async def test_an_answer_that_somebody_waits_for_is_timed_from_when_it_was_asked_for() -> None:
    recorder = MemoryRecorder()
    answering = Answering(request(), decode, recorder)
    # Admission, or a scheduler that dies: no event tells of it.
    waited_s = 0.05
    await asyncio.sleep(waited_s)
    events = [*begun(1, 2), *written(1, "first", 0.3), *written(2, "second", 0.4)]
    assert recorder.values(FIRST_TEXT_SECONDS, mode="plato") == []
    whole, texts = await answer(answering, Batches(events, [end(events)]))
    assert len(texts) == 2
    (first_s,) = recorder.values(FIRST_TEXT_SECONDS, mode="plato")
    (answer_s,) = recorder.values(ANSWER_SECONDS, mode="plato")
    assert waited_s <= first_s <= answer_s < waited_s + 5
    assert recorder.total(ANSWER_TOKENS) == whole.tokens == len("firstsecond")


async def test_an_answer_that_fails_has_no_latency() -> None:
    recorder = MemoryRecorder()
    events = [*begun(1, 2), *written(1, "first", 0.3)]
    failure = RunFailed(RUN, 0.5, status=500, type="t", code="node_failed", message="broken")
    with pytest.raises(RunError):
        await answer(Answering(request(), decode, recorder), Batches([*events, failure]))
    assert len(recorder.values(FIRST_TEXT_SECONDS, mode="plato")) == 1
    assert recorder.values(ANSWER_SECONDS, mode="plato") == []
