"""Answering a question in one response, whole or streamed, in the format of an endpoint."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from plato.api.answers import sse
from plato.api.answers.disconnect import while_connected
from plato.api.answers.event_stream import StreamFormat, write_events
from plato.api.drain import Drain
from plato.api.errors import ErrorReporter
from plato.api.questions.intake import Received
from plato.api.service import RunService
from plato.errors import PlatoError, UnplannedError
from plato.metrics import Recorder
from plato.metrics.recording import AnswerTimer
from plato.runs import (
    Answer,
    ModeChosen,
    NodeOutput,
    RunError,
    RunEvent,
    RunEvents,
    RunFailed,
    RunFinished,
    RunRequest,
    RunState,
)
from plato.settings import Settings
from plato.streams import with_heartbeat

BEGINNINGS: tuple[type[RunEvent], ...] = NodeOutput, RunFinished, RunFailed
"""Events before which an answer has not begun, and its request can still turn out to be invalid."""

DECISIONS: tuple[type[RunEvent], ...] = ModeChosen, RunFinished, RunFailed
"""Events before which it is not known whether an answer is planned."""
Responder = Callable[[], Awaitable[Response]]


class AnswerFormat(StreamFormat, Protocol):
    """How an endpoint writes answers, whole or streamed."""

    def whole(self, answer: Answer) -> str:
        """The body of a response that is not streamed."""
        ...

    def end(self, answer: Answer) -> Iterator[bytes]:
        """The end of a stream that went well."""
        ...


class Answers:
    """Answers questions while their clients are there: one that leaves cancels its run."""

    def __init__(
        self,
        service: RunService,
        settings: Settings,
        errors: ErrorReporter,
        recorder: Recorder,
        drain: Drain,
    ) -> None:
        self._service = service
        self._settings = settings
        self._errors = errors
        self._recorder = recorder
        self._drain = drain

    async def respond(
        self,
        request: Request,
        received: Received,
        asked: RunRequest,
        answer_format: AnswerFormat,
        *,
        stream: bool,
        unplanned: Responder | None = None,
    ) -> Response:
        """The response to a question; `received.slot` is kept until the end of a stream.

        `unplanned` responds in place of a run that turns out to have no plan. Raises the error of
        a run that failed, if it has not begun to answer.
        """
        state = RunState(replace(asked, planned_only=unplanned is not None))
        batches = self._answer(state)
        begun: list[RunEvent] = []
        if stream or unplanned is not None:
            patience_s, until = self._settings.patience_s, BEGINNINGS
            if unplanned is not None:
                # Nothing can be sent before it is known who answers; plans have a deadline.
                patience_s, until = math.inf, DECISIONS
            try:
                async with while_connected(request):
                    begun = await _begin(batches, patience_s, until)
                if isinstance(state.ended, RunFailed):
                    if unplanned is not None and state.ended.code == UnplannedError.code:
                        await batches.aclose()
                        return await unplanned()
                    # Not in the stream: clients handle the status of a response better.
                    raise RunError(state.ended)
            except BaseException:
                await batches.aclose()
                raise

        def note(error: Exception) -> PlatoError:
            reported = self._errors.in_stream(error, request.url.path, asked.run_id)
            request.state.error = reported.code
            return reported

        if stream:
            # A client that disconnects closes this generator.
            events = write_events(
                batches,
                answer_format,
                begun=begun,
                end=lambda: answer_format.end(state.answer()),
                note=note,
            )
            slot = received.slot.pop_all()
            return sse.EventStream(events, slot, self._settings.write_deadline_s)
        async with while_connected(request), aclosing(batches):
            async for _ in batches:
                pass
        return Response(answer_format.whole(state.answer()), media_type="application/json")

    async def _answer(self, state: RunState) -> AsyncGenerator[RunEvents | None]:
        """The events of the answer, timed, and `None` now and then if there is none."""
        timer = AnswerTimer(state, self._recorder)
        batches = with_heartbeat(self._service.answer(state), sse.PING_S)
        async with aclosing(self._drain.watch(batches)) as batches:
            async for events in batches:
                if events is not None:
                    timer.observe(events)
                yield events


async def _begin(
    batches: AsyncGenerator[RunEvents | None], patience_s: float, until: tuple[type[RunEvent], ...]
) -> list[RunEvent]:
    """The events up to one of `until`, or until it was silent for longer than `patience_s`.

    A question that waits for admission is refused within that time.
    """
    begun: list[RunEvent] = []
    silent_s = 0.0
    async for events in batches:
        begun += events or ()
        silent_s = silent_s + sse.PING_S if events is None else 0.0
        if silent_s > patience_s or any(isinstance(event, until) for event in events or ()):
            break
    return begun
