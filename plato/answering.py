"""From the events of a run to the answer: what the ingress and the in-process runtime share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from plato.api.errors import RunError
from plato.composing import Answer, Composer
from plato.reporting import RunTracker
from plato.runs import RunEvent, RunFailed, RunFinished, RunReport, RunRequest


class Answering:
    """Composes the answer of one run while its events come in."""

    def __init__(
        self,
        request: RunRequest,
        decode: Callable[[tuple[int, ...]], str],
        *,
        headings: bool = False,
    ) -> None:
        """`decode` turns output tokens into text; `headings` puts titles above the parts."""
        self._composer = Composer(
            decode, headings=headings, max_tokens=request.max_tokens, stop=request.stop
        )
        self._tracker = RunTracker(request.run, request.mode)
        self._report: RunReport | None = None

    async def follow(
        self, batches: AsyncGenerator[tuple[RunEvent, ...]]
    ) -> AsyncGenerator[tuple[RunEvent, str]]:
        """Every event with the text it releases, until nothing more can become visible.

        What still decodes then is cancelled, by closing `batches`. Raises `RunError` if the run
        failed.
        """
        async with aclosing(batches):
            async for events in batches:
                for event in events:
                    self._tracker.feed(event)
                    if isinstance(event, RunFailed):
                        raise RunError(event)
                    if isinstance(event, RunFinished):
                        self._report = event.report
                    yield event, self._composer.feed(event)
                if self._composer.done and not self._tracker.settled:
                    return

    def answer(self) -> Answer:
        """The answer, after `follow` has ended."""
        finish = self._composer.finish_reason
        if finish is None:
            raise AssertionError("the run has not ended")
        report = self._report or self._tracker.report()
        composer = self._composer
        return Answer(composer.text, finish, report, composer.tokens, composer.first_text_s)
