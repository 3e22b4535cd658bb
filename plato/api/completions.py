"""OpenAI's older completions: a text that the model continues."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from plato.api import sse
from plato.api.answers import Answers
from plato.api.completion_request import CompletionRequest
from plato.api.errors import error_body
from plato.api.intake import Intake
from plato.api.messages import ChatMessage
from plato.api.passthrough import PassThrough
from plato.api.passthrough.decision import COMPLETIONS
from plato.api.passthrough.outgoing import Passed
from plato.api.requests import parse_body, validated
from plato.api.run_info import PlatoInfo, Usage
from plato.api.schemas import ChatCompletionRequest, as_chat
from plato.errors import PlatoError
from plato.runs import Answer, AnswerFinish, Mode, RunEvent, RunRequest


class TextChoice(BaseModel):
    """The only choice of a completion, or a piece of it."""

    index: Literal[0] = 0
    text: str
    logprobs: None = None
    finish_reason: AnswerFinish | None


class TextCompletion(BaseModel):
    """A response, or a piece of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: tuple[TextChoice, ...]
    usage: Usage | None = None
    plato: PlatoInfo | None = None


@dataclass(frozen=True, slots=True)
class CompletionResponse:
    """Builds the bodies of one response; an `AnswerFormat`."""

    asked: RunRequest
    model: str
    include_usage: bool

    def whole(self, answer: Answer) -> str:
        """See `AnswerFormat`."""
        return self._dump(
            answer.text,
            answer.finish_reason,
            usage=Usage.of(answer.report),
            plato=PlatoInfo.of(answer.report),
        )

    def begin(self) -> Iterator[bytes]:
        """See `AnswerFormat`."""
        return iter(())

    def follow(self, event: RunEvent) -> Iterator[bytes]:
        """See `AnswerFormat`."""
        if event.text:
            yield sse.event(self._dump(event.text))

    def end(self, answer: Answer) -> Iterator[bytes]:
        """See `AnswerFormat`."""
        info = PlatoInfo.of(answer.report)
        yield sse.event(self._dump("", answer.finish_reason, plato=info))
        if self.include_usage:
            yield sse.event(self._dump(None, usage=Usage.of(answer.report)))
        yield sse.DONE

    def fail(self, error: PlatoError) -> bytes:
        """See `AnswerFormat`."""
        return sse.event(json.dumps(error_body(error)))

    def _dump(self, text: str | None, finish: AnswerFinish | None = None, **fields: Any) -> str:
        choices = () if text is None else (TextChoice(text=text, finish_reason=finish),)
        completion = TextCompletion(
            id=f"cmpl-{self.asked.run_id}",
            created=int(self.asked.created_unix_s),
            model=self.model,
            choices=choices,
            **fields,
        )
        absent = {name for name in ("usage", "plato") if name not in fields}
        return completion.model_dump_json(exclude=absent)


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

    async def create(self, request: Request) -> Response:
        """Continue a text, streamed or not."""
        async with self._intake.receive(request) as received:
            parse = partial(parse_body, CompletionRequest, received.body, self._context_length)
            body = self._passing.read(request, received, COMPLETIONS, parse)
            if isinstance(body, Passed):
                passed = await self._passing.respond_if_able(request, received, body)
                if passed is not None:
                    return passed
                body = parse()
            asked = self._intake.new_run(request, received, _as_chat(body), raw=True)
            response = CompletionResponse(asked, self._model, body.include_usage)
            return await self._answers.respond(
                request, received, asked, response, stream=bool(body.stream)
            )


def _as_chat(body: CompletionRequest) -> ChatCompletionRequest:
    """A question of the same text; that it is to be continued is not in it."""
    options = {"plato": {**body.options.model_dump(exclude_unset=True), "mode": Mode.SEQUENTIAL}}
    question = ChatMessage(role="user", content=body.prompt)
    with validated():
        return as_chat(body, [question], max_tokens=body.max_tokens, **options)
