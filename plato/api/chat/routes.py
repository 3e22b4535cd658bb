"""OpenAI's chat completions, with the extension object `plato`."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from plato.api.answers import sse
from plato.api.answers.answers import Answers
from plato.api.chat.response import ChatCompletion, ChatCompletionChunk, ChatResponse
from plato.api.errors import ErrorBody
from plato.api.operation import ANSWERING, FAILED, OF_A_RUN, operation
from plato.api.passthrough import PassThrough
from plato.api.passthrough.decision import CHAT
from plato.api.questions.intake import Intake
from plato.api.questions.requests import parse_request
from plato.api.questions.schemas import ChatCompletionRequest
from plato.api.runs.detached import DetachedRuns
from plato.api.service import RunService
from plato.errors import RunNotFoundError


class ChatRoutes:
    """`/v1/chat/completions`."""

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
        ChatCompletion,
        body=ChatCompletionRequest,
        stream=ChatCompletionChunk | ErrorBody,
        ends_with=sse.END,
        errors=ANSWERING,
        passed=True,
    )
    async def create(self, request: Request) -> Response:
        """Answer a question, streamed or not."""
        async with self._intake.receive(request) as received:
            context_length = self._service.context_length
            parse = partial(parse_request, received.body, context_length=context_length)
            body = await self._passing.respond_or_parse(request, received, CHAT, parse)
            if isinstance(body, Response):
                return body
            asked = self._intake.new_run(request, received, body)
            response = ChatResponse.of(
                asked,
                self._model,
                function=asked.function,
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

    @operation(ChatCompletion, errors=(*OF_A_RUN, *FAILED))
    async def get(self, request: Request) -> Response:
        """A completion by its id, once it is complete."""
        state = await self._detached.get(request)
        if state.ended is None:
            run_id = state.request.run_id
            raise RunNotFoundError(
                f"the completion of run {run_id} is not complete; see /v1/runs/{run_id}"
            )
        response = ChatResponse.of(state.request, self._model, function=state.request.function)
        return Response(response.whole(state.answer()), media_type="application/json")
