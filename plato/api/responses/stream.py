"""The events of a streamed response of `/v1/responses`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from plato.api.answers import sse
from plato.api.responses.object import (
    FunctionCall,
    OutputMessage,
    OutputText,
    ResponseObject,
    item_id,
    output_item,
)
from plato.api.wire import OMITTED, AnswerModel
from plato.errors import PlatoError
from plato.runs import Answer, RunError, RunEvent, RunRequest

FROM_START = -1


class ResponseEvent(AnswerModel):
    """An event of a stream; which fields it has depends on its type, as at OpenAI."""

    type: str
    sequence_number: int
    response: ResponseObject | None = OMITTED
    item_id: str | None = OMITTED
    output_index: int | None = OMITTED
    content_index: int | None = OMITTED
    item: OutputMessage | FunctionCall | None = OMITTED
    part: OutputText | None = OMITTED
    delta: str | None = OMITTED
    text: str | None = OMITTED
    logprobs: tuple[()] | None = OMITTED
    name: str | None = OMITTED
    """Of the function that is called."""
    arguments: str | None = OMITTED


class ResponseErrorEvent(AnswerModel):
    """The end of a stream that cannot be followed, of a run that goes on."""

    type: Literal["error"] = "error"
    code: str | None
    message: str
    param: str | None
    sequence_number: int
    """That of the event before it: who resumes behind it misses nothing."""


class ResponseStream:
    """An `AnswerFormat`, which can resume behind any event.

    The sequence numbers of deltas count the characters of the answer. So they are the same
    whenever and wherever the stream is read, however the text is cut into deltas.
    """

    def __init__(self, asked: RunRequest, model: str, starting_after: int = FROM_START) -> None:
        """Only events with sequence numbers above `starting_after` are sent."""
        self._asked = asked
        self._model = model
        self._after = starting_after
        self._pieces: list[str] = []
        """The text so far."""
        self._number = 0
        """Of the next event."""

    def whole(self, answer: Answer) -> str:
        """See `AnswerFormat`."""
        return ResponseObject.answered(self._asked, self._model, answer).model_dump_json()

    def begin(self) -> Iterator[bytes]:
        """See `AnswerFormat`."""
        response = ResponseObject.begun(self._asked, self._model)
        item = output_item(self._asked, "in_progress", None)
        yield from self._event("response.created", response=response)
        yield from self._event("response.in_progress", response=response)
        yield from self._event("response.output_item.added", output_index=0, item=item)
        if self._asked.function is None:
            part = OutputText(text="")
            yield from self._event("response.content_part.added", **self._place, part=part)

    def follow(self, event: RunEvent) -> Iterator[bytes]:
        """See `AnswerFormat`."""
        text = event.text
        if not text:
            return
        # The number of a delta is that of its last character.
        known = max(0, self._after + 1 - self._number)
        self._pieces.append(text)
        self._number += len(text) - 1
        delta = {**self._place, "delta": text[known:]}
        if self._asked.function is not None:
            yield from self._event("response.function_call_arguments.delta", **delta)
        else:
            yield from self._event("response.output_text.delta", **delta, logprobs=())

    def end(self, answer: Answer) -> Iterator[bytes]:
        """See `AnswerFormat`."""
        response = ResponseObject.answered(self._asked, self._model, answer)
        (item,) = response.output
        if isinstance(item, FunctionCall):
            done = {**self._place, "name": item.name, "arguments": item.arguments}
            yield from self._event("response.function_call_arguments.done", **done)
        else:
            (part,) = item.content
            done = {**self._place, "text": part.text, "logprobs": ()}
            yield from self._event("response.output_text.done", **done)
            yield from self._event("response.content_part.done", **self._place, part=part)
        yield from self._event("response.output_item.done", output_index=0, item=item)
        yield from self._event(f"response.{response.status}", response=response)

    def fail(self, error: PlatoError) -> bytes:
        """See `AnswerFormat`."""
        text = "".join(self._pieces)
        response = ResponseObject.failed(self._asked, self._model, text, error)
        return b"".join(self._event("response.failed", response=response))

    @property
    def _place(self) -> dict[str, Any]:
        place: dict[str, Any] = {"item_id": item_id(self._asked), "output_index": 0}
        return place if self._asked.function is not None else {**place, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> Iterator[bytes]:
        number, self._number = self._number, self._number + 1
        if number > self._after:
            event = ResponseEvent(type=kind, sequence_number=number, **fields)
            yield sse.event(event.model_dump_json(), name=kind)


class FollowedStream(ResponseStream):
    """The stream of a run that goes on without it."""

    def fail(self, error: PlatoError) -> bytes:
        """See `StreamFormat`. Only an error of the run itself makes a failed response."""
        if isinstance(error, RunError):
            return super().fail(error)
        event = ResponseErrorEvent(
            code=error.code,
            message=error.message,
            param=error.param,
            sequence_number=max(self._after, self._number - 1),
        )
        return sse.event(event.model_dump_json(), name=event.type)
