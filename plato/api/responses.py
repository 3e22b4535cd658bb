"""OpenAI's responses: answers that can go on without their client, and be fetched later."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from plato.api import sse
from plato.api.answers import Answers
from plato.api.drain import Drain
from plato.api.errors import ErrorReporter
from plato.api.intake import Intake, Received
from plato.api.limits import Limits
from plato.api.passthrough import PassThrough
from plato.api.passthrough.decision import RESPONSES
from plato.api.passthrough.outgoing import Passed
from plato.api.requests import parse_body, run_id_of
from plato.api.response_object import ResponseObject
from plato.api.response_stream import FROM_START, ResponseStream
from plato.api.responses_request import ResponsesRequest, in_callers_names
from plato.api.service import RunService
from plato.api.tenants import tenant_of
from plato.errors import InvalidRequestError
from plato.runs import RunRequest, RunState
from plato.settings import Settings
from plato.streams import with_heartbeat

PATH = "/v1/responses"


class ResponseRoutes:
    """`/v1/responses`."""

    def __init__(
        self,
        service: RunService,
        settings: Settings,
        errors: ErrorReporter,
        limits: Limits,
        intake: Intake,
        answers: Answers,
        passing: PassThrough,
        drain: Drain,
    ) -> None:
        self._service = service
        self._settings = settings
        self._model = settings.model_name
        self._errors = errors
        self._limits = limits
        self._intake = intake
        self._answers = answers
        self._passing = passing
        self._drain = drain

    async def create(self, request: Request) -> Response:
        """Answer, streamed or not, or in the background."""
        async with self._intake.receive(request) as received:
            context_length = self._service.context_length
            parse = partial(parse_body, ResponsesRequest, received.body, context_length)
            body = self._passing.read(request, received, RESPONSES, parse)
            if isinstance(body, Passed):
                passed = await self._passing.respond_if_able(request, received, body)
                if passed is not None:
                    return passed
                body = parse()
            with in_callers_names():
                asked = self._intake.new_run(request, received, body.as_chat())
            stream = bool(body.stream)
            if body.background:
                return await self._open(asked, received, stream=stream)
            response = ResponseStream(asked, self._model)
            return await self._answers.respond(request, received, asked, response, stream=stream)

    async def get(self, request: Request) -> Response:
        """A response as it is now; with `stream=true` its events, after `starting_after`."""
        tenant, run_id = tenant_of(request), run_id_of(request)
        if request.query_params.get("stream", "").lower() == "true":
            after = _starting_after(request)
            with self._limits.follower(tenant, run_id) as slot:
                snapshot = await self._service.snapshot(tenant, run_id)
                return self._follow(snapshot.request, slot, after)
        with self._limits.request(tenant):
            return await self._show(tenant, run_id)

    async def cancel(self, request: Request) -> Response:
        """Cancel a response, unless it has ended; then what there is of it."""
        tenant, run_id = tenant_of(request), run_id_of(request)
        with self._limits.request(tenant):
            await self._service.cancel(tenant, run_id)
            return await self._show(tenant, run_id)

    async def _open(self, asked: RunRequest, received: Received, *, stream: bool) -> Response:
        await self._service.open(asked)
        if stream:
            return self._follow(asked, received.slot)
        return self._response(RunState(asked))

    async def _show(self, tenant: str, run_id: str) -> Response:
        snapshot = await self._service.snapshot(tenant, run_id)
        return self._response(RunState(snapshot.request, snapshot.events))

    def _response(self, state: RunState) -> Response:
        text = ResponseObject.of(state, self._model).model_dump_json()
        return Response(text, media_type="application/json")

    def _follow(
        self, asked: RunRequest, slot: ExitStack, starting_after: int = FROM_START
    ) -> Response:
        """The events of a run that goes on without this client; `slot` is kept until their end."""
        events = self._events(asked, ResponseStream(asked, self._model, starting_after))
        return sse.EventStream(events, slot.pop_all(), self._settings.write_deadline_s)

    async def _events(self, asked: RunRequest, stream: ResponseStream) -> AsyncGenerator[bytes]:
        # Always from the start, so that the numbers of the events are known.
        state = RunState(asked)
        try:
            events = with_heartbeat(self._service.events(asked), sse.PING_S)
            async with aclosing(self._drain.watch(events)) as batches:
                for data in stream.begin():
                    yield data
                async for batch in batches:
                    if batch is None:
                        yield sse.PING
                    for event in batch or ():
                        for data in stream.add(state.feed(event)):
                            yield data
            answer = state.answer()
        except Exception as error:
            yield stream.fail(self._errors.in_stream(error, f"{PATH}/{{response}}", asked.run_id))
            return
        for data in stream.end(answer):
            yield data


def _starting_after(request: Request) -> int:
    given = request.query_params.get("starting_after")
    if given is None:
        return FROM_START
    if not (given.isascii() and given.isdecimal() and len(given) < 10):
        raise InvalidRequestError(
            "'starting_after' must be the sequence number of an event", param="starting_after"
        )
    return int(given)
