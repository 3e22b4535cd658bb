"""Request schemas: OpenAI's chat completion request with the `plato` extension.

A parameter that Plato does not support is rejected, never ignored; the neutral values that clients
send for it are accepted. Checks that need the deployment's settings are in `requests`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

from plato.runs import Length, Mode
from plato.settings import MAX_NODES, MAX_TITLE_CHARS, SamplingFields

MAX_STOPS = 4
MAX_BIAS = 100
MAX_BIASED_TOKENS = 300
MAX_STOP_CHARS = 500
MAX_SHOWN_CHARS = 50
MAX_TEXT_PARTS = 1000
"""Of the content of a message."""
MAX_NAME_CHARS = 512
"""Of names that are only compared or ignored, such as `user`."""
MAX_METADATA = 16
"""Pairs of `metadata`, as at OpenAI."""
TOKEN_COUNT = 2**31
"""Bound of every number of tokens: above all contexts, and within what is stored."""

_TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,8}")
"""Canonical form only, so that no token can appear twice."""


class WireModel(BaseModel):
    """Rejects other types and unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _FailFast(FailFast):
    """Tells only the first wrong item of a list, of which there can be many; hashable."""

    def __hash__(self) -> int:
        return hash(type(self))


_FAIL_FAST = _FailFast()


def _neutral(*values: object, hint: str) -> BeforeValidator:
    """Accept null and the neutral `values`; reject everything else with `hint`."""

    def check(value: Any) -> Any:
        if value is None or value in values:
            return value
        raise PydanticCustomError("unsupported_value", "is not supported; {hint}", {"hint": hint})

    return BeforeValidator(check)


def _shown(value: object) -> str:
    """A value of the client in a message: not all of it, which can be megabytes."""
    return repr(value)[:MAX_SHOWN_CHARS]


def _plain_text(content: Any) -> Any:
    """Message content as one string; text parts are joined with newlines."""
    if not isinstance(content, list):
        if content is None or isinstance(content, dict):
            raise PydanticCustomError(
                "invalid_type", "must be a string or a list of parts of type 'text'"
            )
        return content
    if len(content) > MAX_TEXT_PARTS:
        raise PydanticCustomError(
            "invalid_value",
            "has {count} parts; send at most {most}",
            {"count": len(content), "most": MAX_TEXT_PARTS},
        )
    texts: list[str] = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            raise PydanticCustomError(
                "unsupported_value",
                "part {index} is of type {kind}, but the model accepts text only; "
                "send parts of type 'text'",
                {"index": index, "kind": _shown(kind)},
            )
        if not isinstance(part.get("text"), str):
            raise PydanticCustomError(
                "invalid_type", "part {index} has no string 'text'", {"index": index}
            )
        if unknown := sorted(part.keys() - {"type", "text"}):
            raise PydanticCustomError(
                "unknown_parameter",
                "part {index} has the unknown field {name}; remove it",
                {"index": index, "name": _shown(unknown[0])},
            )
        texts.append(part["text"])
    return "\n".join(texts)


def _known_role(role: Any) -> Any:
    if role in ("tool", "function"):
        raise PydanticCustomError(
            "unsupported_value",
            "is '{role}', but tools are not supported; put the result into a user message",
            {"role": role},
        )
    return role


_NO_TOOLS = "tools are not supported, remove it"


class ChatMessage(WireModel):
    """One message of the conversation. Earlier answers can be sent back unchanged."""

    role: Annotated[
        Literal["system", "developer", "user", "assistant"], BeforeValidator(_known_role)
    ] = Field(description="`developer` is treated as `system`.")
    tool_calls: Annotated[list[Any] | None, _neutral([], hint=_NO_TOOLS)] = None
    function_call: Annotated[None, _neutral(hint=_NO_TOOLS)] = None
    audio: Annotated[None, _neutral(hint="the model accepts text only")] = None
    content: Annotated[
        str, BeforeValidator(_plain_text, json_schema_input_type=str | list[dict[str, str]])
    ]
    name: Annotated[None, _neutral(hint="put the name into the content")] = None
    refusal: Annotated[None, _neutral(hint="put the refusal into the content")] = None
    annotations: Annotated[list[Any] | None, _neutral([], hint="remove it")] = None


class StreamOptions(WireModel):
    """Options of a streamed response."""

    include_usage: bool | None = Field(default=None, description="Send the usage in a final chunk.")
    include_obfuscation: Annotated[
        bool | None, _neutral(False, hint="chunks are not padded, leave it out or send false")
    ] = None


PartNumber = Annotated[int, Field(ge=0, le=MAX_NODES)]


class PlanNode(WireModel):
    """One part of a plan given by the caller."""

    title: str = Field(min_length=1, max_length=MAX_TITLE_CHARS)
    dependencies: Annotated[list[PartNumber], _FAIL_FAST] = Field(
        default_factory=list,
        max_length=MAX_NODES,
        description="Numbers of earlier parts whose text this part needs.",
    )
    number: PartNumber | None = Field(
        default=None, description="Position in the plan: 1, 2, 3, ..."
    )
    max_tokens: int | None = Field(
        default=None, ge=1, lt=TOKEN_COUNT, description="Maximum number of tokens of this part."
    )
    length: Length | None = Field(
        default=None,
        strict=False,
        description="How long the part should be; it also sets the part's share of `max_tokens`.",
    )


class PlatoOptions(WireModel):
    """The `plato` object of a request."""

    mode: Mode = Field(
        default=Mode.AUTO,
        strict=False,
        description="`plato`: planned, with dependencies between parts; `skeleton`: planned, all "
        "parts independent; `sequential`: ordinary decoding; `auto`: the model chooses `plato` or "
        "`sequential`.",
    )
    max_nodes: int | None = Field(
        default=None,
        ge=2,
        le=MAX_NODES,
        description="Maximum number of parts; default: set by the deployment, which also says how "
        "many the model is asked for.",
    )
    plan: Annotated[list[PlanNode], _FAIL_FAST] | None = Field(
        default=None,
        max_length=MAX_NODES,
        description="Use this plan instead of asking the model for one.",
    )
    decode_plan: bool = Field(
        default=False,
        description="Decode the given plan as if the model had written it (for benchmarks).",
    )
    headings: bool = Field(
        default=False, description="Write each part's title as a heading above it."
    )
    events: bool = Field(default=False, description="Also stream the events of every part.")
    prompts: bool = Field(
        default=False, description="Include the prompt of every part in the response."
    )
    exact_lengths: bool = Field(
        default=False, description="Decode every part to exactly its max_tokens (for benchmarks)."
    )
    deadline_s: float | None = Field(
        default=None, gt=0, description="Deadline of the answer, in seconds."
    )


def _stop_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


def _token_biases(biases: dict[str, float] | None) -> dict[str, float] | None:
    for token, bias in (biases or {}).items():
        if not _TOKEN_ID.fullmatch(token):
            raise PydanticCustomError(
                "invalid_value",
                'has the key {token}; keys are token ids, such as "50"',
                {"token": _shown(token)},
            )
        if not -MAX_BIAS <= bias <= MAX_BIAS:
            raise PydanticCustomError(
                "invalid_value",
                "adds {bias} to token {token}; send {low} to {high}",
                {"bias": f"{bias:g}", "token": token, "low": -MAX_BIAS, "high": MAX_BIAS},
            )
    return biases


_LEAVE_OUT = "leave it out"

Name = Annotated[str, Field(max_length=MAX_NAME_CHARS)]


class ChatCompletionRequest(SamplingFields, WireModel):
    """`POST /v1/chat/completions`, as the `openai` client sends it.

    Sampling parameters that it leaves out are the deployment's.
    """

    model: Name = Field(description="The name in `GET /v1/models`.")
    messages: Annotated[list[ChatMessage], _FAIL_FAST] = Field(
        min_length=1, description="The last message is the user's question."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = Field(
        default=None,
        ge=1,
        lt=TOKEN_COUNT,
        description="Maximum number of tokens of the answer, without the plan.",
    )
    max_tokens: int | None = Field(
        default=None, ge=1, lt=TOKEN_COUNT, description="Older name of the same limit."
    )
    presence_penalty: float | None = Field(
        default=None,
        ge=-2,
        le=2,
        description="Penalty for tokens that already occur in the part; negative: favour them.",
    )
    frequency_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="Penalty for each occurrence of a token in the part."
    )
    logit_bias: Annotated[dict[str, float] | None, AfterValidator(_token_biases)] = Field(
        default=None,
        max_length=MAX_BIASED_TOKENS,
        description="Bias added to the logits, by token id: -100 to 100.",
    )
    seed: int | None = Field(
        default=None,
        ge=-(2**63),
        lt=2**63,
        description="Equal seeds give equal answers; default: random.",
    )
    stop: Annotated[
        Annotated[list[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]], _FAIL_FAST]
        | None,
        BeforeValidator(_stop_list, json_schema_input_type=str | list[str] | None),
    ] = Field(
        default=None, max_length=MAX_STOPS, description="The answer ends before the first of these."
    )
    plato: PlatoOptions | None = None

    # Metadata about the caller; ignored.
    user: Name | None = None
    safety_identifier: Name | None = None
    metadata: dict[Name, Name] | None = Field(default=None, max_length=MAX_METADATA)

    # Accepted only with neutral values.
    n: Annotated[int | None, _neutral(1, hint="send one request for each answer")] = None
    store: Annotated[
        bool | None, _neutral(False, hint="completions are not stored, leave it out or send false")
    ] = None
    tools: Annotated[list[Any] | None, _neutral([], hint=_NO_TOOLS)] = None
    tool_choice: Annotated[str | None, _neutral("none", "auto", hint=_NO_TOOLS)] = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Any] | None, _neutral([], hint=_NO_TOOLS)] = None
    function_call: Annotated[str | None, _neutral("none", "auto", hint=_NO_TOOLS)] = None
    logprobs: Annotated[bool | None, _neutral(False, hint="leave it out or send false")] = None
    top_logprobs: Annotated[int | None, _neutral(0, hint="leave it out or send 0")] = None
    response_format: Annotated[
        dict[str, str] | None, _neutral({"type": "text"}, hint='use {"type": "text"}')
    ] = None
    modalities: Annotated[list[str] | None, _neutral(["text"], hint='use ["text"]')] = None
    service_tier: Annotated[
        str | None, _neutral("auto", "default", hint="use 'auto' or 'default'")
    ] = None
    reasoning_effort: Annotated[
        None, _neutral(hint="leave it out; plato.mode says whether the answer is planned")
    ] = None
    verbosity: Annotated[None, _neutral(hint="leave it out; use max_completion_tokens")] = None
    prediction: Annotated[None, _neutral(hint=_LEAVE_OUT)] = None
    web_search_options: Annotated[None, _neutral(hint=_LEAVE_OUT)] = None
    audio: Annotated[None, _neutral(hint="the model writes text only")] = None
    moderation: Annotated[None, _neutral(hint=_LEAVE_OUT)] = None
    prompt_cache_key: Annotated[
        None, _neutral(hint="leave it out; equal prefixes are reused without a key")
    ] = None
    prompt_cache_retention: Annotated[None, _neutral(hint=_LEAVE_OUT)] = None
    prompt_cache_options: Annotated[None, _neutral(hint=_LEAVE_OUT)] = None

    @model_validator(mode="after")
    def _consistent(self) -> ChatCompletionRequest:
        """Rules that span fields; each names the field to change."""
        if self.messages[-1].role != "user" or not self.messages[-1].content.strip():
            raise _at("messages", "must end with a message of role 'user' that contains a question")
        if self.stream_options is not None and not self.stream:
            raise _at("stream_options", "requires stream=true; set it, or remove stream_options")
        older, newer = self.max_tokens, self.max_completion_tokens
        if older is not None and newer is not None and older != newer:
            raise _at("max_tokens", "differs from max_completion_tokens; send only one of them")
        options = self.options
        if options.events and not self.stream:
            raise _at("plato.events", "requires stream=true; set it, or remove plato.events")
        if options.mode is Mode.SEQUENTIAL and options.plan is not None:
            raise _at("plato.plan", "cannot be combined with mode 'sequential'; remove one of them")
        if options.decode_plan and options.plan is None:
            raise _at("plato.decode_plan", "requires plato.plan; send one or remove it")
        if options.exact_lengths:
            self._check_lengths(options)
        return self

    def _check_lengths(self, options: PlatoOptions) -> None:
        if options.mode is Mode.SEQUENTIAL:
            if self.answer_tokens is None:
                raise _at("max_tokens", "is required with plato.exact_lengths")
        elif options.plan is None or any(node.max_tokens is None for node in options.plan):
            raise _at(
                "plato.exact_lengths",
                "requires a plan in which every part has max_tokens, or mode 'sequential' with "
                "max_tokens",
            )

    @property
    def options(self) -> PlatoOptions:
        """The `plato` object; defaults if none was sent."""
        return self.plato or PlatoOptions()

    @property
    def answer_tokens(self) -> int | None:
        """Maximum number of tokens of the answer, by either name."""
        return self.max_tokens if self.max_tokens is not None else self.max_completion_tokens

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return bool(self.stream_options and self.stream_options.include_usage)


def _at(param: str, message: str) -> PydanticCustomError:
    """A request-level error about `param`."""
    return PydanticCustomError("invalid_value", "{message}", {"param": param, "message": message})
