"""Chat completions and their chunks, as OpenAI's clients read them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer

from plato.api import sse
from plato.api.errors import error_body
from plato.api.events import describe_event
from plato.api.run_info import PlatoEvent, PlatoInfo, Usage
from plato.api.tool_calls import (
    CalledFunction,
    CalledFunctionDelta,
    ToolCall,
    ToolCallDelta,
    call_id,
)
from plato.errors import PlatoError
from plato.runs import Answer, AnswerFinish, Event, NodePlanned, RunEvent, RunRequest

ChatFinish = AnswerFinish | Literal["tool_calls"]


class AnswerMessage(BaseModel):
    """The answer: a text, or a tool call."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    reasoning_content: str | None = None
    """The plan, if it was asked for."""
    tool_calls: tuple[ToolCall, ...] | None = None
    refusal: None = None

    @model_serializer(mode="wrap")
    def _asked_for(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = dump(self)
        for name in ("reasoning_content", "tool_calls"):
            if fields[name] is None:
                del fields[name]
        return fields


class Choice(BaseModel):
    """The only choice of a completion."""

    index: Literal[0] = 0
    message: AnswerMessage
    logprobs: None = None
    finish_reason: ChatFinish


class ChatCompletion(BaseModel):
    """A response that is not streamed."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    metadata: dict[str, str] | None = None
    plato: PlatoInfo


class Delta(BaseModel):
    """What a chunk adds to the message."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    """A line of the plan, if it was asked for."""
    tool_calls: tuple[ToolCallDelta, ...] | None = None

    @model_serializer
    def _given(self) -> dict[str, Any]:
        """Omits fields without a value, as OpenAI does."""
        fields = {
            "role": self.role,
            "content": self.content,
            "reasoning_content": self.reasoning_content,
            "tool_calls": [call.model_dump(exclude_none=True) for call in self.tool_calls or ()]
            or None,
        }
        return {name: value for name, value in fields.items() if value is not None}


class ChunkChoice(BaseModel):
    """The only choice of a chunk."""

    index: Literal[0] = 0
    delta: Delta
    logprobs: None = None
    finish_reason: ChatFinish | None = None


class ChatCompletionChunk(BaseModel):
    """A piece of a streamed response."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: Usage | None = None
    plato: PlatoInfo | PlatoEvent | None = None


def _plan_line(number: int, title: str) -> str:
    return f"{number}. {title}\n"


def _now() -> int:
    return int(time.time())


@dataclass(slots=True)
class ChatResponse:
    """Builds the bodies of one response, as JSON text; an `AnswerFormat`.

    A stream is `opening`, any `text` and `event`, `closing`, `usage` if requested, `sse.DONE`.
    """

    run: str
    model: str
    include_usage: bool = False
    """Whether chunks contain `"usage": null`, because a usage chunk follows."""
    created: int = field(default_factory=_now)
    """Unix time in seconds."""
    metadata: dict[str, str] | None = None
    """The caller's own."""
    with_events: bool = False
    """Whether chunks also report events."""
    with_plan: bool = False
    """Whether the plan that the model writes is sent as reasoning; in a stream, its lines that
    are known before the first text."""
    function: str | None = None
    """Name of the function that the answer calls; None if it is text."""
    _text_begun: bool = field(default=False, init=False)

    @classmethod
    def of(
        cls,
        request: RunRequest,
        model: str,
        *,
        include_usage: bool = False,
        with_events: bool = False,
        with_plan: bool = False,
    ) -> ChatResponse:
        """For the run of `request`, by the model of this name in the API."""
        return cls(
            request.run_id,
            model,
            include_usage,
            int(request.created_unix_s),
            dict(request.metadata) or None,
            with_events,
            with_plan,
            request.function,
        )

    @property
    def id(self) -> str:
        """The id of the completion."""
        return f"chatcmpl-{self.run}"

    def begin(self) -> Iterator[bytes]:
        """See `AnswerFormat`."""
        yield sse.event(self.opening())

    def follow(self, event: RunEvent) -> Iterator[bytes]:
        """See `AnswerFormat`."""
        # Pages show reasoning in front of the answer, so what comes later is left out.
        shows_plan = self.with_plan and not self._text_begun
        if shows_plan and isinstance(event, NodePlanned) and event.plan is not None:
            yield sse.event(self.reasoning(event.node.number, event.node.title))
        described = self.event(event) if self.with_events else None
        if described is not None:
            yield sse.event(described)
        if event.text:
            self._text_begun = True
            yield sse.event(self.text(event.text))

    def end(self, answer: Answer) -> Iterator[bytes]:
        """See `AnswerFormat`."""
        yield sse.event(self.closing(answer))
        if self.include_usage:
            yield sse.event(self.usage(answer))
        yield sse.DONE

    def fail(self, error: PlatoError) -> bytes:
        """See `AnswerFormat`."""
        return sse.event(json.dumps(error_body(error)))

    def whole(self, answer: Answer) -> str:
        """The response that is not streamed."""
        report = answer.report
        planned = self.with_plan and report.plan.source == "model" and report.plan.nodes > 1
        plan = "".join(_plan_line(node.number, node.title) for node in report.nodes)
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=(
                Choice(
                    message=self._message(answer.text, plan if planned else None),
                    finish_reason=self._finish(answer),
                ),
            ),
            usage=Usage.of(answer.report),
            metadata=self.metadata,
            plato=PlatoInfo.of(answer.report),
        ).model_dump_json()

    def opening(self) -> str:
        """The first chunk: the role, and the function that is called."""
        delta = Delta(role="assistant", content="")
        if self.function is not None:
            called = CalledFunctionDelta(name=self.function)
            call = ToolCallDelta(id=call_id(self.run), type="function", function=called)
            delta = Delta(role="assistant", tool_calls=(call,))
        return self._chunk(ChunkChoice(delta=delta))

    def text(self, text: str) -> str:
        """A chunk of the answer, or of the arguments of its call."""
        delta = Delta(content=text)
        if self.function is not None:
            call = ToolCallDelta(function=CalledFunctionDelta(arguments=text))
            delta = Delta(tool_calls=(call,))
        return self._chunk(ChunkChoice(delta=delta))

    def reasoning(self, number: int, title: str) -> str:
        """A chunk of a line of the plan."""
        delta = Delta(reasoning_content=_plan_line(number, title))
        return self._chunk(ChunkChoice(delta=delta))

    def event(self, event: Event) -> str | None:
        """A chunk that reports an event; None where `describe_event` returns None."""
        described = describe_event(event)
        if described is None:
            return None
        return self._chunk(ChunkChoice(delta=Delta()), PlatoEvent(event=described))

    def closing(self, answer: Answer) -> str:
        """The last chunk with a choice: why the answer ended, and the run."""
        return self._chunk(
            ChunkChoice(delta=Delta(), finish_reason=self._finish(answer)),
            PlatoInfo.of(answer.report),
        )

    def usage(self, answer: Answer) -> str:
        """The chunk after `closing`, for clients that set `include_usage`."""
        return self._dump({"plato"}, choices=(), usage=Usage.of(answer.report))

    def _message(self, text: str, plan: str | None) -> AnswerMessage:
        if self.function is None:
            return AnswerMessage(content=text, reasoning_content=plan)
        called = CalledFunction(name=self.function, arguments=text)
        return AnswerMessage(
            content=None, tool_calls=(ToolCall(id=call_id(self.run), function=called),)
        )

    def _finish(self, answer: Answer) -> ChatFinish:
        called = self.function is not None and answer.finish_reason == "stop"
        return "tool_calls" if called else answer.finish_reason

    def _chunk(self, choice: ChunkChoice, plato: PlatoInfo | PlatoEvent | None = None) -> str:
        absent = set() if self.include_usage else {"usage"}
        if plato is None:
            absent.add("plato")
        return self._dump(absent, choices=(choice,), plato=plato)

    def _dump(self, absent: set[str], **fields: Any) -> str:
        chunk = ChatCompletionChunk(id=self.id, created=self.created, model=self.model, **fields)
        return chunk.model_dump_json(exclude=absent)
