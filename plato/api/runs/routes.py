"""Detached runs over HTTP."""

from __future__ import annotations

from dataclasses import replace

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from plato.api.operation import ASKING, OF_A_RUN, operation
from plato.api.questions.intake import Intake
from plato.api.questions.requests import parse_request
from plato.api.questions.schemas import ChatCompletionRequest
from plato.api.runs.detached import DetachedRuns
from plato.api.runs.object import RunObject
from plato.api.runs.stream import STREAMED, RunStream
from plato.api.service import RunService
from plato.errors import InvalidRequestError
from plato.runs import BEFORE_ALL, EventId, RunState
from plato.runs.events import EVENT_ID

PATH = "/v1/runs"


class EventsHeaders(BaseModel):
    """The headers of an event stream."""

    last_event_id: str | None = Field(
        default=None, alias="Last-Event-ID", pattern=EVENT_ID, description="Only later events."
    )


class EventsQuery(BaseModel):
    """The query of an event stream."""

    after: str | None = Field(
        default=None, pattern=EVENT_ID, description="The same, for clients that set no headers."
    )


class RunRoutes:
    """`/v1/runs`."""

    def __init__(
        self, service: RunService, model: str, intake: Intake, detached: DetachedRuns
    ) -> None:
        """`model` is the name of the model in responses."""
        self._service = service
        self._model = model
        self._intake = intake
        self._detached = detached

    @operation(RunObject, status=202, body=ChatCompletionRequest, errors=ASKING)
    async def create(self, request: Request) -> Response:
        """Start a detached run: 202, and the run."""
        async with self._intake.receive(request) as received:
            body = parse_request(
                received.body, run=True, context_length=self._service.context_length
            )
            asked = replace(self._intake.new_run(request, received, body), detached=True)
            await self._service.open(asked)
        location = {"Location": f"{PATH}/{asked.run_id}"}
        return RunObject.of(RunState(asked), self._model).as_response(202, location)

    @operation(RunObject, errors=OF_A_RUN)
    async def get(self, request: Request) -> Response:
        """The current state of a run."""
        return RunObject.of(await self._detached.get(request), self._model).as_response()

    @operation(RunObject, errors=OF_A_RUN)
    async def cancel(self, request: Request) -> Response:
        """Cancel a run, unless it has ended; then its state."""
        return RunObject.of(await self._detached.cancel(request), self._model).as_response()

    @operation(
        None,
        others={204: None},
        stream=STREAMED,
        query=EventsQuery,
        headers=EventsHeaders,
        errors=(*OF_A_RUN, InvalidRequestError),
    )
    async def events(self, request: Request) -> Response:
        """The events of a run, live; with Last-Event-ID, those after it. 204: there are no more."""
        given = request.headers.get("last-event-id") or request.query_params.get("after")
        try:
            after = EventId.parse(given) if given else BEFORE_ALL
        except ValueError as error:
            raise InvalidRequestError(f"Last-Event-ID: {error}", param="last-event-id") from error
        async with self._detached.followed(request) as (found, slot):
            if found.ended is not None and after >= found.last_id:
                # Tells clients not to reconnect.
                return Response(status_code=204)
            # From the start: the last event shows the whole run.
            state = RunState(found.request)
            stream = RunStream(state, self._model, after)
            return self._detached.follow(
                state, slot, f"{PATH}/{{run}}/events", stream, lambda: iter(())
            )
