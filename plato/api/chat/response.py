"""Chat completions and their chunks, as OpenAI's clients read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pydantic import BaseModel

from plato.api.answers import sse
from plato.api.answers.run_info import PlatoEvent, PlatoInfo, Usage
from plato.api.answers.tool_calls import (
    CalledFunction,
    CalledFunctionDelta,
    ToolCall,
    ToolCallDelta,
    call_id,
)
from plato.api.chat.completion_format import CompletionFormat
from plato.api.runs.events import describe_event
from plato.api.wire import OMITTED, AnswerModel
from plato.runs import Answer, AnswerFinish, Event, NodePlanned, RunEvent

ChatFinish = AnswerFinish | Literal["tool_calls"]


class AnswerMessage(AnswerModel):
    """The answer: a text, or a tool call."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    reasoning_content: str | None = OMITTED
    """The plan, if it was asked for."""
    tool_calls: tuple[ToolCall, ...] | None = OMITTED
    refusal: None = None


class Choice(AnswerModel):
    """The only choice of a completion."""

    index: Literal[0] = 0
    message: AnswerMessage
    logprobs: None = None
    finish_reason: ChatFinish


class ChatCompletion(AnswerModel):
    """A response that is not streamed."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    metadata: dict[str, str] | None = None
    plato: PlatoInfo


class Delta(AnswerModel):
    """What a chunk adds to the message."""

    role: Literal["assistant"] | None = OMITTED
    content: str | None = OMITTED
    reasoning_content: str | None = OMITTED
    """A line of the plan, if it was asked for."""
    tool_calls: tuple[ToolCallDelta, ...] | None = OMITTED


class ChunkChoice(AnswerModel):
    """The only choice of a chunk."""

    index: Literal[0] = 0
    delta: Delta
    logprobs: None = None
    finish_reason: ChatFinish | None = None


class ChatCompletionChunk(AnswerModel):
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


@dataclass(slots=True)
class ChatResponse(CompletionFormat):
    """An `AnswerFormat`; a stream begins with `opening`, and any `text` and `event` follow."""

    prefix: ClassVar[str] = "chatcmpl-"
    piece: ClassVar[type[BaseModel]] = ChatCompletionChunk

    with_events: bool = False
    """Whether chunks also report events."""
    with_plan: bool = False
    """Whether the plan that the model writes is sent as reasoning; in a stream, its lines that
    are known before the first text."""
    function: str | None = None
    """Name of the function that the answer calls; None if it is text."""
    _text_begun: bool = field(default=False, init=False)

    def begin(self) -> Iterator[bytes]:
        """See `StreamFormat`."""
        yield sse.event(self.opening())

    def follow(self, event: RunEvent) -> Iterator[bytes]:
        """See `StreamFormat`."""
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

    def whole(self, answer: Answer) -> str:
        """See `AnswerFormat`."""
        report = answer.report
        planned = self.with_plan and report.plan.source == "model" and report.plan.nodes > 1
        plan = "".join(_plan_line(node.number, node.title) for node in report.nodes)
        message = self._message(answer.text, plan if planned else None)
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=(Choice(message=message, finish_reason=self._finish(answer)),),
            usage=Usage.of(report),
            metadata=self.metadata,
            plato=PlatoInfo.of(report),
        ).model_dump_json()

    def opening(self) -> str:
        """The first chunk: the role, and the function that is called."""
        delta = Delta(role="assistant", content="")
        if self.function is not None:
            called = CalledFunctionDelta(name=self.function)
            call = ToolCallDelta(id=call_id(self.run), type="function", function=called)
            delta = Delta(role="assistant", tool_calls=(call,))
        return self._piece(ChunkChoice(delta=delta))

    def text(self, text: str) -> str:
        """A chunk of the answer, or of the arguments of its call."""
        delta = Delta(content=text)
        if self.function is not None:
            call = ToolCallDelta(function=CalledFunctionDelta(arguments=text))
            delta = Delta(tool_calls=(call,))
        return self._piece(ChunkChoice(delta=delta))

    def reasoning(self, number: int, title: str) -> str:
        """A chunk of a line of the plan."""
        delta = Delta(reasoning_content=_plan_line(number, title))
        return self._piece(ChunkChoice(delta=delta))

    def event(self, event: Event) -> str | None:
        """A chunk that reports an event; None where `describe_event` returns None."""
        described = describe_event(event)
        if described is None:
            return None
        return self._piece(ChunkChoice(delta=Delta()), PlatoEvent(event=described))

    def closing(self, answer: Answer) -> str:
        """See `CompletionFormat`."""
        choice = ChunkChoice(delta=Delta(), finish_reason=self._finish(answer))
        return self._piece(choice, PlatoInfo.of(answer.report))

    def _message(self, text: str, plan: str | None) -> AnswerMessage:
        if self.function is None:
            return AnswerMessage(content=text, reasoning_content=plan)
        called = CalledFunction(name=self.function, arguments=text)
        call = ToolCall(id=call_id(self.run), function=called)
        return AnswerMessage(content=None, tool_calls=(call,))

    def _finish(self, answer: Answer) -> ChatFinish:
        called = self.function is not None and answer.finish_reason == "stop"
        return "tool_calls" if called else answer.finish_reason
