"""Detached runs over HTTP: the run as an object, and its resumable event stream."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from plato.api import sse
from plato.api.drain import Drain
from plato.api.errors import ErrorReporter, error_body
from plato.api.events import describe_event
from plato.api.intake import Intake
from plato.api.limits import Limits
from plato.api.requests import parse_request, run_id_of
from plato.api.run_info import PlatoInfo, Usage
from plato.api.run_list import RunStatus
from plato.api.service import RunService
from plato.api.tenants import tenant_of
from plato.errors import InvalidRequestError
from plato.runs import (
    BEFORE_ALL,
    AnswerFinish,
    EventId,
    Mode,
    RunError,
    RunEvent,
    RunFailed,
    RunFinished,
    RunRequest,
    RunState,
)
from plato.settings import Settings
from plato.streams import with_heartbeat


class RunOptions(BaseModel):
    """What was asked for; how it is sampled is in `plato.sampling`."""

    model_config = ConfigDict(from_attributes=True)

    mode: Mode
    max_nodes: int
    max_tokens: int | None
    stop: tuple[str, ...]
    headings: bool
    deadline_s: float


class RunObject(BaseModel):
    """The body of `/v1/runs/{id}`."""

    id: str
    object: Literal["run"] = "run"
    status: RunStatus
    model: str
    created: int
    """Unix time in seconds."""
    question: str
    """The last message; only its beginning once the run has ended."""
    options: RunOptions
    metadata: dict[str, str]
    answer: str
    """The text so far."""
    texts: dict[int, str]
    """The text of every part so far, by its number."""
    finish_reason: AnswerFinish | None = None
    """Set if `done`."""
    error: dict[str, str | None] | None = None
    """Set if `failed` or `cancelled`; as in the body of an error."""
    usage: Usage | None = None
    """Set if `done`."""
    plato: PlatoInfo

    @classmethod
    def of(cls, state: RunState, model: str) -> RunObject:
        """Describe the current state of a run."""
        ended = state.ended
        fields: dict[str, Any] = {"status": "running"}
        if isinstance(ended, RunFinished):
            answer = state.answer()
            fields = {
                "status": "done",
                "finish_reason": answer.finish_reason,
                "usage": Usage.of(answer.report),
            }
        elif isinstance(ended, RunFailed):
            fields = {
                "status": "cancelled" if ended.code == "cancelled" else "failed",
                "error": error_body(RunError(ended))["error"],
            }
        asked = state.request
        return cls(
            id=asked.run_id,
            model=model,
            created=int(asked.created_unix_s),
            question=asked.messages[-1].content,
            options=RunOptions.model_validate(asked),
            metadata=dict(asked.metadata),
            answer=state.text,
            texts={number: node.text for number, node in sorted(state.nodes.items())},
            plato=PlatoInfo.of(state.report()),
            **fields,
        )

    def response(self, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        """The run as the body of a response."""
        return Response(self.model_dump_json(), status, headers, "application/json")


def event_data(event: RunEvent, state: RunState, model: str) -> dict[str, Any]:
    """The `data` of the last event of `state`: its `type`, its fields, and the text it releases.

    `text` begins at byte (UTF-8) `text_offset` of the answer, at which clients cut theirs; after
    a takeover a client that reconnects may get some text again.
    """
    return describe_event(event) or {
        "type": "run_finished" if isinstance(event, RunFinished) else "run_failed",
        "id": str(event.id),
        "run": RunObject.of(state, model).model_dump(mode="json"),
        "text": event.text,
        "text_offset": event.text_offset,
    }


class RunRoutes:
    """`/v1/runs`."""

    def __init__(
        self,
        service: RunService,
        settings: Settings,
        errors: ErrorReporter,
        limits: Limits,
        intake: Intake,
        drain: Drain,
    ) -> None:
        self._limits = limits
        self._intake = intake
        self._service = service
        self._settings = settings
        self._model = settings.model_name
        self._errors = errors
        self._drain = drain

    async def create(self, request: Request) -> Response:
        """Start a detached run: 202, and the run."""
        async with self._intake.receive(request) as received:
            body = parse_request(
                received.body, run=True, context_length=self._service.context_length
            )
            asked = self._intake.new_run(request, received, body)
            await self._service.open(asked)
        location = {"Location": f"/v1/runs/{asked.run_id}"}
        return RunObject.of(RunState(asked), self._model).response(202, location)

    async def get(self, request: Request) -> Response:
        """The current state of a run."""
        tenant, run_id = tenant_of(request), run_id_of(request)
        with self._limits.request(tenant):
            return await self._show(tenant, run_id)

    async def cancel(self, request: Request) -> Response:
        """Cancel a run, unless it has ended; then its state."""
        tenant, run_id = tenant_of(request), run_id_of(request)
        with self._limits.request(tenant):
            await self._service.cancel(tenant, run_id)
            return await self._show(tenant, run_id)

    async def _show(self, tenant: str, run_id: str) -> Response:
        snapshot = await self._service.snapshot(tenant, run_id)
        return RunObject.of(RunState(snapshot.request, snapshot.events), self._model).response()

    async def events(self, request: Request) -> Response:
        """The events of a run, live; with Last-Event-ID, those after it."""
        given = request.headers.get("last-event-id") or request.query_params.get("after")
        try:
            after = EventId.parse(given) if given else BEFORE_ALL
        except ValueError as error:
            raise InvalidRequestError(f"Last-Event-ID: {error}", param="last-event-id") from error
        tenant, run_id = tenant_of(request), run_id_of(request)
        with self._limits.follower(tenant, run_id) as slot:
            snapshot = await self._service.snapshot(tenant, run_id)
            state = RunState(snapshot.request, snapshot.events)
            if state.ended is not None and after >= state.last_id:
                # Tells clients not to reconnect.
                return Response(status_code=204)
            stream = self._stream(snapshot.request, after)
            return sse.EventStream(stream, slot.pop_all(), self._settings.write_deadline_s)

    async def _stream(self, asked: RunRequest, after: EventId) -> AsyncGenerator[bytes]:
        # Always from the start: the last event shows the whole run.
        state = RunState(asked)
        try:
            events = with_heartbeat(self._service.events(asked), sse.PING_S)
            async with aclosing(self._drain.watch(events)) as batches:
                async for batch in batches:
                    if batch is None:
                        yield sse.PING
                        continue
                    for event in batch:
                        state.feed(event)
                        if event.id > after:
                            data = event_data(event, state, self._model)
                            yield sse.event(json.dumps(data), name=data["type"], id=data["id"])
        except Exception as error:
            reported = self._errors.in_stream(error, "/v1/runs/{run}/events", asked.run_id)
            yield sse.event(json.dumps(error_body(reported)), name="error")
