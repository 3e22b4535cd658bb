"""OpenAI's chat completions, with the extension object `plato`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from plato.api import sse
from plato.api.drain import Drain
from plato.api.errors import ErrorReporter
from plato.api.intake import Intake, Received
from plato.api.limits import Limits
from plato.api.requests import parse_request, run_id_of, while_connected
from plato.api.responses import ChatResponse
from plato.api.service import RunService
from plato.api.tenants import tenant_of
from plato.errors import RunNotFoundError
from plato.metrics import Recorder
from plato.metrics.recording import AnswerTimer
from plato.runs import NodeOutput, RunError, RunEvent, RunEvents, RunFailed, RunFinished, RunState
from plato.settings import Settings
from plato.streams import with_heartbeat

PATH = "/v1/chat/completions"

BEGINNINGS = NodeOutput, RunFinished, RunFailed
"""Events before which an answer has not begun, and its request can still turn out to be invalid."""


class ChatRoutes:
    """`/v1/chat/completions`."""

    def __init__(
        self,
        service: RunService,
        settings: Settings,
        errors: ErrorReporter,
        recorder: Recorder,
        limits: Limits,
        intake: Intake,
        drain: Drain,
    ) -> None:
        self._limits = limits
        self._service = service
        self._settings = settings
        self._errors = errors
        self._recorder = recorder
        self._intake = intake
        self._drain = drain

    async def create(self, request: Request) -> Response:
        """Answer a question, streamed or not."""
        async with self._intake.receive(request) as received:
            return await self._create(request, received)

    async def get(self, request: Request) -> Response:
        """A completion by its id, once it is complete."""
        tenant, run_id = tenant_of(request), run_id_of(request)
        with self._limits.request(tenant):
            snapshot = await self._service.snapshot(tenant, run_id)
        state = RunState(snapshot.request, snapshot.events)
        if state.ended is None:
            raise RunNotFoundError(
                f"the completion of run {run_id} is not complete; see /v1/runs/{run_id}"
            )
        response = ChatResponse.of(state.request, self._settings.model_name)
        return Response(response.completion(state.answer()), media_type="application/json")

    async def _create(self, request: Request, received: Received) -> Response:
        body = parse_request(received.body, context_length=self._service.context_length)
        asked = self._intake.new_run(request, received, body)
        state = RunState(asked)
        batches = self._answer(state)
        response = ChatResponse.of(asked, self._settings.model_name, body.include_usage)
        if body.stream:
            try:
                async with while_connected(request):
                    begun = await _begin(batches, self._settings.patience_s)
                if isinstance(state.ended, RunFailed):
                    # Not in the stream: clients handle the status of a response better.
                    raise RunError(state.ended)
            except BaseException:
                await batches.aclose()
                raise
            stream = self._stream(state, begun, batches, response, body.options.events)
            return sse.EventStream(stream, received.slot.pop_all(), self._settings.write_deadline_s)
        async with while_connected(request), aclosing(batches):
            async for _ in batches:
                pass
        return Response(response.completion(state.answer()), media_type="application/json")

    async def _answer(self, state: RunState) -> AsyncGenerator[RunEvents | None]:
        """The events of the answer, timed, and `None` now and then if there is none."""
        timer = AnswerTimer(state, self._recorder)
        batches = with_heartbeat(self._service.answer(state), sse.PING_S)
        async with aclosing(self._drain.watch(batches)) as batches:
            async for events in batches:
                if events is not None:
                    timer.observe(events)
                yield events

    async def _stream(
        self,
        state: RunState,
        begun: list[RunEvent],
        batches: AsyncGenerator[RunEvents | None],
        response: ChatResponse,
        with_events: bool,
    ) -> AsyncGenerator[bytes]:
        """The answer as server-sent events; a client that disconnects closes this generator."""

        def describe(event: RunEvent) -> list[bytes]:
            described = response.event(event) if with_events else None
            data = (described, response.text(event.text) if event.text else None)
            return [sse.event(each) for each in data if each is not None]

        try:
            async with aclosing(batches):
                yield sse.event(response.opening())
                for event in begun:
                    for data in describe(event):
                        yield data
                async for events in batches:
                    if events is None:
                        yield sse.PING
                    for event in events or ():
                        for data in describe(event):
                            yield data
            answer = state.answer()
        except Exception as error:
            yield self._errors.in_stream(error, PATH, state.request.run_id)
            return
        yield sse.event(response.closing(answer))
        if response.include_usage:
            yield sse.event(response.usage(answer))
        yield sse.DONE


async def _begin(batches: AsyncGenerator[RunEvents | None], patience_s: float) -> list[RunEvent]:
    """The events until the answer begins, or until it was silent for longer than `patience_s`.

    A question that waits for admission is refused within that time.
    """
    begun: list[RunEvent] = []
    silent_s = 0.0
    async for events in batches:
        begun += events or ()
        silent_s = silent_s + sse.PING_S if events is None else 0.0
        if silent_s > patience_s or any(isinstance(event, BEGINNINGS) for event in events or ()):
            break
    return begun
