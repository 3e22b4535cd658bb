"""OpenAI's chat completions, with the extension object `plato`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from plato.api.answers import Answers
from plato.api.chat_response import ChatResponse
from plato.api.intake import Intake
from plato.api.limits import Limits
from plato.api.passthrough import PassThrough
from plato.api.passthrough.decision import CHAT
from plato.api.passthrough.outgoing import Passed
from plato.api.requests import parse_request, run_id_of
from plato.api.service import RunService
from plato.api.tenants import tenant_of
from plato.errors import RunNotFoundError
from plato.runs import RunState


class ChatRoutes:
    """`/v1/chat/completions`."""

    def __init__(
        self,
        service: RunService,
        model: str,
        limits: Limits,
        intake: Intake,
        answers: Answers,
        passing: PassThrough,
    ) -> None:
        """`model` is the name of the model in responses."""
        self._service = service
        self._model = model
        self._limits = limits
        self._intake = intake
        self._answers = answers
        self._passing = passing

    async def create(self, request: Request) -> Response:
        """Answer a question, streamed or not."""
        async with self._intake.receive(request) as received:
            body = self._passing.read(
                request,
                received,
                CHAT,
                lambda: parse_request(received.body, context_length=self._service.context_length),
            )
            if isinstance(body, Passed):
                return await self._passing.respond(request, received, body)
            asked = self._intake.new_run(request, received, body)
            response = ChatResponse.of(
                asked,
                self._model,
                include_usage=body.include_usage,
                with_events=body.options.events,
                with_plan=body.options.reasoning,
            )
            return await self._answers.respond(
                request,
                received,
                asked,
                response,
                stream=bool(body.stream),
                unplanned=self._passing.unplanned(request, received, CHAT),
            )

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
        response = ChatResponse.of(state.request, self._model)
        return Response(response.whole(state.answer()), media_type="application/json")
