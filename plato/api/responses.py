"""Response schemas: chat completions, their chunks, and the `plato` object in both."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, model_serializer

from plato.runs import (
    Answer,
    AnswerFinish,
    Event,
    EventId,
    Mode,
    ModeChosen,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeReport,
    NodeStarted,
    PlanFinished,
    PlanReport,
    RunEvent,
    RunReport,
    RunRequest,
)


class PromptTokensDetails(BaseModel):
    """Details of the prompt tokens."""

    cached_tokens: int


class CompletionTokensDetails(BaseModel):
    """Details of the completion tokens."""

    reasoning_tokens: int
    """Tokens of the plan."""


class Usage(BaseModel):
    """What a caller is billed: the tokens of an ordinary answer, and those of the plan.

    The prompt is the caller's own conversation. Plan tokens count as completion tokens, as
    reasoning does at OpenAI. `Work` has everything else that the answer took.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails

    @classmethod
    def of(cls, report: RunReport) -> Usage:
        """The usage of a run that has ended."""
        completion = report.answer_tokens + report.plan.tokens
        return cls(
            prompt_tokens=report.conversation_tokens,
            completion_tokens=completion,
            total_tokens=report.billed_tokens,
            prompt_tokens_details=PromptTokensDetails(
                cached_tokens=report.conversation_cached_tokens
            ),
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=report.plan.tokens),
        )


class Work(BaseModel):
    """Tokens that engines have processed for an answer, of the plan and all parts."""

    prompt_tokens: int
    cached_tokens: int
    """The part of `prompt_tokens` that was cached."""
    output_tokens: int
    """Decoded tokens of the parts, including what is not in the answer."""
    plan_tokens: int

    @classmethod
    def of(cls, report: RunReport) -> Work:
        """The work of a run, ended or not."""
        return cls(
            prompt_tokens=report.prompt_tokens,
            cached_tokens=report.cached_tokens,
            output_tokens=report.output_tokens,
            plan_tokens=report.plan.tokens,
        )


class Graph(BaseModel):
    """The plan graph and the state of every node."""

    nodes: tuple[NodeReport, ...]


class Timings(BaseModel):
    """Seconds."""

    duration_s: float
    first_text_s: float | None
    """Until the first text of the answer could be shown."""
    plan_s: float
    """Decoding of the plan, its prompt included."""


class Sampling(BaseModel):
    """How the answer was sampled: the request's parameters, else the deployment's.

    Sent as a request's fields, they give the same text again.
    """

    model_config = ConfigDict(from_attributes=True)

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int


class PlatoInfo(BaseModel):
    """The `plato` object of a response."""

    run: str
    mode: Mode
    requested_mode: Mode
    reason: str | None
    """Why the mode is not the requested one, or how `auto` decided."""
    plan: PlanReport
    graph: Graph
    timings: Timings
    sampling: Sampling
    usage: Work
    degraded: tuple[str, ...]
    """Services that were unavailable during the run."""
    ignored: tuple[str, ...] = ()
    """Names of the request's parameters that had no effect; see `plato.api.schemas`."""

    @classmethod
    def of(cls, report: RunReport) -> PlatoInfo:
        """Describe a run, ended or not."""
        return cls(
            run=report.run_id,
            mode=report.mode,
            requested_mode=report.requested_mode,
            reason=report.reason,
            plan=report.plan,
            graph=Graph(nodes=report.nodes),
            timings=Timings(
                duration_s=report.duration_s,
                first_text_s=report.first_text_s,
                plan_s=report.plan.finished_s - report.plan.started_s,
            ),
            sampling=Sampling.model_validate(report.sampling),
            usage=Work.of(report),
            degraded=report.degraded,
            ignored=report.ignored,
        )


class PlatoEvent(BaseModel):
    """The `plato` object of a chunk that reports an event."""

    event: dict[str, Any]
    """`type` (for example `node_started`) and the fields of that event in `plato.runs`."""


class AnswerMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The only choice of a completion."""

    index: Literal[0] = 0
    message: AnswerMessage
    logprobs: None = None
    finish_reason: AnswerFinish


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

    @model_serializer
    def _given(self) -> dict[str, str]:
        """Omits fields without a value, as OpenAI does."""
        fields = {"role": self.role, "content": self.content}
        return {name: value for name, value in fields.items() if value is not None}


class ChunkChoice(BaseModel):
    """The only choice of a chunk."""

    index: Literal[0] = 0
    delta: Delta
    logprobs: None = None
    finish_reason: AnswerFinish | None = None


class ChatCompletionChunk(BaseModel):
    """A piece of a streamed response."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: Usage | None = None
    plato: PlatoInfo | PlatoEvent | None = None


_EVENT_TYPES: dict[type[Event], str] = {
    ModeChosen: "mode_chosen",
    NodePlanned: "node_planned",
    PlanFinished: "plan_finished",
    NodeStarted: "node_started",
    NodeOutput: "node_output",
    NodeFinished: "node_finished",
}
_EVENT_KINDS = {name: kind for kind, name in _EVENT_TYPES.items()}
_ADAPTERS: dict[type[Event], TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in _EVENT_TYPES}


def describe_event(event: Event) -> dict[str, Any] | None:
    """An event as JSON values with its `type`; None for the end of a run, reported elsewhere."""
    kind = type(event)
    if kind not in _EVENT_TYPES:
        return None
    fields: dict[str, Any] = _ADAPTERS[kind].dump_python(event, mode="json")
    run_id = fields.pop("run_id")
    return {"type": _EVENT_TYPES[kind], "run": run_id, **fields, "id": str(event.id)}


def read_event(described: Mapping[str, Any]) -> RunEvent | None:
    """The inverse of `describe_event`; None for an unknown type."""
    kind = _EVENT_KINDS.get(described["type"])
    if kind is None:
        return None
    fields = {**described, "run_id": described["run"], "id": EventId.parse(described["id"])}
    event: RunEvent = _ADAPTERS[kind].validate_python(fields)
    return event


def _now() -> int:
    return int(time.time())


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """Builds the bodies of one response; every method returns JSON text.

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

    @classmethod
    def of(cls, request: RunRequest, model: str, include_usage: bool = False) -> ChatResponse:
        """For the run of `request`, by the model of this name in the API."""
        return cls(
            request.run_id,
            model,
            include_usage,
            int(request.created_unix_s),
            dict(request.metadata) or None,
        )

    @property
    def id(self) -> str:
        """The id of the completion."""
        return f"chatcmpl-{self.run}"

    def completion(self, answer: Answer) -> str:
        """The whole response."""
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=(
                Choice(
                    message=AnswerMessage(content=answer.text), finish_reason=answer.finish_reason
                ),
            ),
            usage=Usage.of(answer.report),
            metadata=self.metadata,
            plato=PlatoInfo.of(answer.report),
        ).model_dump_json()

    def opening(self) -> str:
        """The first chunk: the role."""
        return self._chunk(ChunkChoice(delta=Delta(role="assistant", content="")))

    def text(self, text: str) -> str:
        """A chunk of the answer."""
        return self._chunk(ChunkChoice(delta=Delta(content=text)))

    def event(self, event: Event) -> str | None:
        """A chunk that reports an event; None where `describe_event` returns None."""
        described = describe_event(event)
        if described is None:
            return None
        return self._chunk(ChunkChoice(delta=Delta()), PlatoEvent(event=described))

    def closing(self, answer: Answer) -> str:
        """The last chunk with a choice: why the answer ended, and the run."""
        return self._chunk(
            ChunkChoice(delta=Delta(), finish_reason=answer.finish_reason),
            PlatoInfo.of(answer.report),
        )

    def usage(self, answer: Answer) -> str:
        """The chunk after `closing`, for clients that set `include_usage`."""
        return self._dump({"plato"}, choices=(), usage=Usage.of(answer.report))

    def _chunk(self, choice: ChunkChoice, plato: PlatoInfo | PlatoEvent | None = None) -> str:
        absent = set() if self.include_usage else {"usage"}
        if plato is None:
            absent.add("plato")
        return self._dump(absent, choices=(choice,), plato=plato)

    def _dump(self, absent: set[str], **fields: Any) -> str:
        chunk = ChatCompletionChunk(id=self.id, created=self.created, model=self.model, **fields)
        return chunk.model_dump_json(exclude=absent)
