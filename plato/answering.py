"""From the events of a run to the answer: what the ingress and the in-process runtime share."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from plato.api.errors import RunError
from plato.composing import Answer, Composer
from plato.metrics import NO_METRICS, Metric, Recorder
from plato.metrics.table import ANSWER_SECONDS, ANSWER_TOKENS, FIRST_TEXT_SECONDS
from plato.reporting import RunTracker
from plato.runs import RunEvent, RunFailed, RunFinished, RunReport, RunRequest


class Answering:
    """Composes the answer of one run while its events come in."""

    def __init__(
        self,
        request: RunRequest,
        decode: Callable[[tuple[int, ...]], str],
        recorder: Recorder = NO_METRICS,
    ) -> None:
        """`decode` turns output tokens into text.

        `recorder` is for whoever waits for this answer: it is timed from here, by this
        process's clock, so what no event tells of (admission, a scheduler that dies) counts.
        """
        self._recorder = recorder
        self._asked = time.monotonic()
        self._shown = False
        self._composer = Composer(
            decode, headings=request.headings, max_tokens=request.max_tokens, stop=request.stop
        )
        self._tracker = RunTracker(request.run, request.mode)
        self._ended: RunFinished | RunFailed | None = None

    @property
    def text(self) -> str:
        """The answer so far."""
        return self._composer.text

    @property
    def first_text_s(self) -> float | None:
        """When the first text was released, in seconds since the run started."""
        return self._composer.first_text_s

    @property
    def ended(self) -> RunFinished | RunFailed | None:
        """The run's last event, if it has come."""
        return self._ended

    @property
    def report(self) -> RunReport:
        """The run as it stands."""
        ended = self._ended.report if self._ended is not None else None
        return ended or self._tracker.report()

    def take(self, event: RunEvent) -> str:
        """Take an event; returns the text it releases."""
        self._tracker.feed(event)
        if isinstance(event, RunFinished | RunFailed):
            self._ended = event
        text = "" if isinstance(event, RunFailed) else self._composer.feed(event)
        if text and not self._shown:
            self._shown = True
            self._observe(FIRST_TEXT_SECONDS)
        if isinstance(event, RunFinished):
            self._observe(ANSWER_SECONDS)
            self._recorder.add(ANSWER_TOKENS, self._composer.tokens)
        return text

    def _observe(self, metric: Metric) -> None:
        waited_s = time.monotonic() - self._asked
        self._recorder.observe(metric, waited_s, mode=self._tracker.mode)

    async def follow(
        self, batches: AsyncGenerator[tuple[RunEvent, ...]]
    ) -> AsyncGenerator[tuple[RunEvent, str]]:
        """Every event with the text it releases. Raises `RunError` if the run failed."""
        async with aclosing(batches):
            async for events in batches:
                for event in events:
                    text = self.take(event)
                    if isinstance(event, RunFailed):
                        raise RunError(event)
                    yield event, text

    def answer(self) -> Answer:
        """The answer, after `follow` has ended."""
        finish = self._composer.finish_reason
        if finish is None:
            raise AssertionError("the run has not ended")
        composer = self._composer
        return Answer(composer.text, finish, self.report, composer.tokens, composer.first_text_s)
