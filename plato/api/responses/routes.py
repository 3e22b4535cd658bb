"""OpenAI's responses: answers that can go on without their client, and be fetched later."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from plato.api.answers.answers import Answers, Responder
from plato.api.errors import in_callers_names
from plato.api.operation import ANSWERING, OF_A_RUN, operation
from plato.api.passthrough import AbsentPathError, PassThrough
from plato.api.passthrough.decision import RESPONSES
from plato.api.questions.intake import Intake, Received
from plato.api.questions.requests import parse_body, parse_query
from plato.api.responses.object import ResponseObject
from plato.api.responses.references import with_items
from plato.api.responses.request import CHAT_NAMES, ResponsesRequest
from plato.api.responses.stream import (
    FROM_START,
    FollowedStream,
    ResponseErrorEvent,
    ResponseEvent,
    ResponseStream,
)
from plato.api.runs.detached import DetachedRuns
from plato.api.service import RunService
from plato.errors import InvalidRequestError, RunNotFoundError
from plato.runs import RunRequest, RunState

PATH = "/v1/responses"


class ResponseQuery(BaseModel):
    """The query of a response."""

    stream: bool = False
    starting_after: int | None = Field(
        default=None, ge=0, lt=10**9, description="Sequence number: only later events."
    )


class ResponseRoutes:
    """`/v1/responses`."""

    def __init__(
        self,
        service: RunService,
        model: str,
        intake: Intake,
        answers: Answers,
        passing: PassThrough,
        detached: DetachedRuns,
    ) -> None:
        """`model` is the name of the model in responses."""
        self._service = service
        self._model = model
        self._intake = intake
        self._answers = answers
        self._passing = passing
        self._detached = detached

    @operation(
        ResponseObject,
        body=ResponsesRequest,
        stream=ResponseEvent | ResponseErrorEvent,
        errors=(*ANSWERING, RunNotFoundError),
        passed=True,
    )
    async def create(self, request: Request) -> Response:
        """Answer, streamed or not, or in the background."""
        async with self._intake.receive(request) as received:
            with in_callers_names(CHAT_NAMES):
                return await self._respond(request, received)

    @operation(
        ResponseObject,
        stream=ResponseEvent | ResponseErrorEvent,
        query=ResponseQuery,
        errors=(*OF_A_RUN, InvalidRequestError),
    )
    async def get(self, request: Request) -> Response:
        """A response as it is now; with `stream=true` its events, after `starting_after`."""
        query = parse_query(ResponseQuery, request)
        if query.stream:
            async with self._detached.followed(request) as (state, slot):
                after = FROM_START if query.starting_after is None else query.starting_after
                return self._follow(state.request, slot, after)
        return self._response(await self._detached.get(request))

    @operation(ResponseObject, errors=OF_A_RUN)
    async def cancel(self, request: Request) -> Response:
        """Cancel a response, unless it has ended; then what there is of it."""
        return self._response(await self._detached.cancel(request))

    async def _respond(self, request: Request, received: Received) -> Response:
        body = await with_items(received.body, self._service, received.tenant)
        received = replace(received, body=body)
        context_length = self._service.context_length
        parse = partial(parse_body, ResponsesRequest, received.body, context_length)
        parsed = await self._passing.respond_or_parse(request, received, RESPONSES, parse)
        if isinstance(parsed, Response):
            return parsed
        asked = self._intake.new_run(request, received, parsed.as_chat())
        asked = replace(asked, detached=bool(parsed.background))
        stream = bool(parsed.stream)
        if asked.detached:
            return await self._open(asked, received, stream=stream)

        async def answer(asked: RunRequest, unplanned: Responder | None = None) -> Response:
            response = ResponseStream(asked, self._model)
            return await self._answers.respond(
                request, received, asked, response, stream=stream, unplanned=unplanned
            )

        try:
            return await answer(asked, self._passing.unplanned(request, received, RESPONSES))
        except AbsentPathError:
            # That run has ended without an answer.
            return await answer(self._intake.new_run(request, received, parsed.as_chat()))

    async def _open(self, asked: RunRequest, received: Received, *, stream: bool) -> Response:
        await self._service.open(asked)
        if stream:
            return self._follow(asked, received.slot)
        return self._response(RunState(asked))

    def _response(self, state: RunState) -> Response:
        return ResponseObject.of(state, self._model).as_response()

    def _follow(
        self, asked: RunRequest, slot: ExitStack, starting_after: int = FROM_START
    ) -> Response:
        """The events of a run that goes on without this client; `slot` is kept until their end."""
        state, stream = RunState(asked), FollowedStream(asked, self._model, starting_after)
        path = f"{PATH}/{{response}}"
        return self._detached.follow(state, slot, path, stream, lambda: stream.end(state.answer()))
