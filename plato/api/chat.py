"""OpenAI's chat completions, with the extension object `plato`."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from plato.api import sse
from plato.api.errors import ErrorReporter
from plato.api.requests import (
    parse_request,
    read_body,
    tenant_of,
    to_run_request,
    while_connected,
)
from plato.api.responses import ChatResponse
from plato.api.service import RunService
from plato.metrics import Recorder
from plato.metrics.recording import AnswerTimer
from plato.runs import RunState
from plato.settings import Settings

logger = logging.getLogger(__name__)

PATH = "/v1/chat/completions"


class ChatRoutes:
    """`POST /v1/chat/completions`."""

    def __init__(
        self, service: RunService, settings: Settings, errors: ErrorReporter, recorder: Recorder
    ) -> None:
        self._service = service
        self._settings = settings
        self._errors = errors
        self._recorder = recorder

    async def create(self, request: Request) -> Response:
        """Answer a question, streamed or not."""
        body = parse_request(await read_body(request))
        asked = to_run_request(body, settings=self._settings, tenant=tenant_of(request))
        request.state.run = asked.run_id
        logger.info(
            "run started",
            extra={"run": asked.run_id, "mode": asked.mode, "stream": bool(body.stream)},
        )
        state = RunState(asked)
        timer = AnswerTimer(state, self._recorder)
        response = ChatResponse(asked.run_id, self._settings.model_name, body.include_usage)
        if body.stream:
            stream = self._stream(state, timer, response, with_events=body.options.events)
            return StreamingResponse(stream, media_type=sse.MEDIA_TYPE, headers=sse.HEADERS)
        async with while_connected(request), aclosing(self._service.answer(state)) as batches:
            async for events in batches:
                timer.observe(events)
        return Response(response.completion(state.answer()), media_type="application/json")

    async def _stream(
        self, state: RunState, timer: AnswerTimer, response: ChatResponse, *, with_events: bool
    ) -> AsyncGenerator[bytes]:
        """The answer as server-sent events; a client that disconnects closes this generator."""
        yield sse.event(response.opening())
        try:
            async with aclosing(self._service.answer(state)) as batches:
                async for events in batches:
                    timer.observe(events)
                    for event in events:
                        if with_events and (described := response.event(event)):
                            yield sse.event(described)
                        if event.text:
                            yield sse.event(response.text(event.text))
            answer = state.answer()
        except Exception as error:
            yield self._errors.in_stream(error, PATH, state.request.run_id)
            return
        yield sse.event(response.closing(answer))
        if response.include_usage:
            yield sse.event(response.usage(answer))
        yield sse.DONE
