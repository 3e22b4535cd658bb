"""OpenAI's older completions: a text that the model continues."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from plato.api.answers import sse
from plato.api.answers.answers import Answers
from plato.api.answers.run_info import PlatoInfo, Usage
from plato.api.chat.completion_format import CompletionFormat
from plato.api.chat.completion_request import CHAT_NAMES, CompletionRequest
from plato.api.errors import ErrorBody, in_callers_names
from plato.api.operation import ANSWERING, operation
from plato.api.passthrough import PassThrough
from plato.api.passthrough.decision import COMPLETIONS
from plato.api.questions.intake import Intake, Received
from plato.api.questions.messages import ChatMessage
from plato.api.questions.requests import parse_body, validated
from plato.api.questions.schemas import ChatCompletionRequest, as_chat
from plato.api.wire import OMITTED, AnswerModel
from plato.runs import Answer, AnswerFinish, Mode, RunEvent


class TextChoice(AnswerModel):
    """The only choice of a completion, or a piece of it."""

    index: Literal[0] = 0
    text: str
    logprobs: None = None
    finish_reason: AnswerFinish | None = None


class TextCompletion(AnswerModel):
    """A response, or a piece of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: tuple[TextChoice, ...]
    usage: Usage | None = None
    metadata: dict[str, str] | None = OMITTED
    plato: PlatoInfo | None = None


@dataclass(slots=True)
class CompletionResponse(CompletionFormat):
    """An `AnswerFormat`."""

    prefix: ClassVar[str] = "cmpl-"
    piece: ClassVar[type[BaseModel]] = TextCompletion

    def whole(self, answer: Answer) -> str:
        """See `AnswerFormat`."""
        report = answer.report
        return TextCompletion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=(TextChoice(text=answer.text, finish_reason=answer.finish_reason),),
            usage=Usage.of(report),
            metadata=self.metadata,
            plato=PlatoInfo.of(report),
        ).model_dump_json()

    def begin(self) -> Iterator[bytes]:
        """See `StreamFormat`."""
        return iter(())

    def follow(self, event: RunEvent) -> Iterator[bytes]:
        """See `StreamFormat`."""
        if event.text:
            yield sse.event(self._piece(TextChoice(text=event.text)))

    def closing(self, answer: Answer) -> str:
        """See `CompletionFormat`."""
        choice = TextChoice(text="", finish_reason=answer.finish_reason)
        return self._piece(choice, PlatoInfo.of(answer.report))


class CompletionRoutes:
    """`/v1/completions`."""

    def __init__(
        self,
        model: str,
        intake: Intake,
        answers: Answers,
        passing: PassThrough,
        context_length: int,
    ) -> None:
        """`model` is the name of the model in responses."""
        self._model = model
        self._intake = intake
        self._answers = answers
        self._passing = passing
        self._context_length = context_length

    @operation(
        TextCompletion,
        body=CompletionRequest,
        stream=TextCompletion | ErrorBody,
        ends_with=sse.END,
        errors=ANSWERING,
        passed=True,
    )
    async def create(self, request: Request) -> Response:
        """Continue a text, streamed or not."""
        async with self._intake.receive(request) as received:
            with in_callers_names(CHAT_NAMES):
                return await self._respond(request, received)

    async def _respond(self, request: Request, received: Received) -> Response:
        parse = partial(parse_body, CompletionRequest, received.body, self._context_length)
        body = await self._passing.respond_or_parse(request, received, COMPLETIONS, parse)
        if isinstance(body, Response):
            return body
        asked = self._intake.new_run(request, received, _as_chat(body), raw=True)
        response = CompletionResponse.of(asked, self._model, include_usage=body.include_usage)
        return await self._answers.respond(
            request, received, asked, response, stream=bool(body.stream)
        )


def _as_chat(body: CompletionRequest) -> ChatCompletionRequest:
    """A question of the same text; that it is to be continued is not in it."""
    options = body.options.model_dump(exclude_unset=True)
    if body.mode is Mode.AUTO:
        options["mode"] = Mode.SEQUENTIAL
    question = ChatMessage(role="user", content=body.prompt)
    with validated():
        return as_chat(body, [question], max_tokens=body.max_tokens, plato=options)
