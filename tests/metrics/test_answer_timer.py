"""An answer is timed for whoever waits for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from plato.metrics.recording import AnswerTimer
from plato.metrics.table import ANSWER_SECONDS, ANSWER_TOKENS, FIRST_TEXT_SECONDS
from plato.runs import Mode, RunEvent, RunFailed, RunFinished, RunState
from tests.recording import MemoryRecorder
from tests.runs.examples import REPORT, RUN, chosen, output, planned, request

TEXT = replace(output(1, "first"), text="first")
MORE = replace(output(1, " more", 5), text=" more", text_offset=5)
END = RunFinished(RUN, 3.0, replace(REPORT, answer_tokens=10))


class Waiting:
    """Somebody who waits for an answer."""

    def __init__(self) -> None:
        self.recorder = MemoryRecorder()
        self._state = RunState(request(mode=Mode.AUTO))
        self._timer = AnswerTimer(self._state, self.recorder)

    def receive(self, *events: RunEvent) -> None:
        for event in events:
            self._state.feed(event)
        self._timer.observe(events)


async def test_it_is_timed_from_when_it_was_asked_for() -> None:
    waiting = Waiting()
    # Admission, or a scheduler that dies: no event tells of it.
    waited_s = 0.05
    await asyncio.sleep(waited_s)
    waiting.receive(planned(1), chosen(), TEXT)
    waiting.receive(MORE)
    waiting.receive(END)
    (first_s,) = waiting.recorder.values(FIRST_TEXT_SECONDS, mode="plato")
    (answer_s,) = waiting.recorder.values(ANSWER_SECONDS, mode="plato")
    assert waited_s <= first_s <= answer_s < waited_s + 5
    assert waiting.recorder.total(ANSWER_TOKENS) == 10


def test_events_without_text_are_not_its_first_text() -> None:
    waiting = Waiting()
    waiting.receive(planned(1), chosen(), output(2, "hidden"))
    assert waiting.recorder.values(FIRST_TEXT_SECONDS, mode="plato") == []
    waiting.receive(TEXT)
    assert len(waiting.recorder.values(FIRST_TEXT_SECONDS, mode="plato")) == 1


def test_without_a_mode_it_counts_as_of_the_requested_one() -> None:
    waiting = Waiting()
    waiting.receive(END)
    assert len(waiting.recorder.values(ANSWER_SECONDS, mode="auto")) == 1


def test_one_that_fails_has_no_latency() -> None:
    waiting = Waiting()
    waiting.receive(chosen(), TEXT, RunFailed(RUN, 0.5, 500, "t", "node_failed", "broken"))
    assert len(waiting.recorder.values(FIRST_TEXT_SECONDS, mode="plato")) == 1
    assert waiting.recorder.values(ANSWER_SECONDS, mode="plato") == []
    assert waiting.recorder.total(ANSWER_TOKENS) == 0
