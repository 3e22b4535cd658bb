"""What clients send: OpenAI's chat completion request with the `plato` extension.

A parameter that Plato cannot honour is refused, never ignored; the neutral values that clients
send for it are accepted. Checks that need the deployment's settings are in `requests`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from plato.runs import Mode
from plato.settings import MAX_NODES, MAX_TITLE_CHARS

MAX_STOPS = 4
MAX_BIAS = 100
MAX_BIASED_TOKENS = 300

_TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,8}")
"""Canonical, so that no token can be named twice."""


class WireModel(BaseModel):
    """Strict about types and names: what is not understood is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _neutral(*values: object, hint: str) -> BeforeValidator:
    """Accept null and `values`, which ask for nothing special; refuse the rest with `hint`."""

    def check(value: Any) -> Any:
        if value is None or value in values:
            return value
        raise PydanticCustomError("unsupported_value", "is not supported; {hint}", {"hint": hint})

    return BeforeValidator(check)


def _plain_text(content: Any) -> Any:
    """Message content as one string; text parts are joined by line breaks."""
    if not isinstance(content, list):
        if content is None or isinstance(content, dict):
            raise PydanticCustomError(
                "invalid_type", "must be a string or a list of parts of type 'text'"
            )
        return content
    texts: list[str] = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            raise PydanticCustomError(
                "unsupported_value",
                "part {index} is of type {kind}, and the model reads text only; "
                "send parts of type 'text'",
                {"index": index, "kind": repr(kind)},
            )
        if not isinstance(part.get("text"), str):
            raise PydanticCustomError(
                "invalid_type", "part {index} has no string 'text'", {"index": index}
            )
        if unknown := sorted(part.keys() - {"type", "text"}):
            raise PydanticCustomError(
                "unknown_parameter",
                "part {index} has the unknown field {name}; remove it",
                {"index": index, "name": repr(unknown[0])},
            )
        texts.append(part["text"])
    return "\n".join(texts)


def _known_role(role: Any) -> Any:
    if role in ("tool", "function"):
        raise PydanticCustomError(
            "unsupported_value",
            "is '{role}', and tools are not supported; put the result into a user message",
            {"role": role},
        )
    return role


_NO_TOOLS = "the model calls no tools, remove it"


class ChatMessage(WireModel):
    """One message of the conversation. Answers of earlier turns can be sent back as they came."""

    role: Annotated[
        Literal["system", "developer", "user", "assistant"], BeforeValidator(_known_role)
    ] = Field(description="`developer` is read as `system`.")
    tool_calls: Annotated[list[Any] | None, _neutral([], hint=_NO_TOOLS)] = None
    function_call: Annotated[None, _neutral(hint=_NO_TOOLS)] = None
    audio: Annotated[None, _neutral(hint="the model reads text only")] = None
    content: Annotated[
        str, BeforeValidator(_plain_text, json_schema_input_type=str | list[dict[str, str]])
    ]
    name: Annotated[None, _neutral(hint="put the name into the content")] = None
    refusal: Annotated[None, _neutral(hint="put the refusal into the content")] = None
    annotations: Annotated[list[Any] | None, _neutral([], hint="remove it")] = None


class StreamOptions(WireModel):
    """Options of a streamed response."""

    include_usage: bool | None = Field(default=None, description="Send the usage as a last chunk.")
    include_obfuscation: Annotated[
        bool | None, _neutral(False, hint="chunks are not padded, leave it out or send false")
    ] = None


class PlanNode(WireModel):
    """One part of a plan that the caller hands in."""

    title: str = Field(min_length=1, max_length=MAX_TITLE_CHARS)
    dependencies: list[int] = Field(
        default_factory=list, description="Numbers of earlier parts whose text this part needs."
    )
    number: int | None = Field(default=None, description="Its place in the plan: 1, 2, 3, ...")
    max_tokens: int | None = Field(
        default=None, ge=1, description="Tokens of this part, at the most."
    )


class PlatoOptions(WireModel):
    """The `plato` object of a request."""

    mode: Mode = Field(
        default=Mode.AUTO,
        strict=False,
        description="`plato`: planned, dependent parts see each other; `skeleton`: planned, all "
        "parts independent; `sequential`: ordinary decoding; `auto`: `plato` or `sequential`, "
        "whichever suits the question.",
    )
    max_nodes: int | None = Field(
        default=None,
        ge=2,
        le=MAX_NODES,
        description="Parts, at the most; default: the deployment's.",
    )
    plan: list[PlanNode] | None = Field(
        default=None, description="Use this plan, do not ask the model."
    )
    decode_plan: bool = Field(
        default=False,
        description="Decode the given plan as if the model wrote it (for benchmarks).",
    )
    headings: bool = Field(default=False, description="Titles as headings above the parts.")
    events: bool = Field(default=False, description="Stream what happens to every part, too.")
    prompts: bool = Field(
        default=False, description="Report the prompt of every part in the graph."
    )
    exact_lengths: bool = Field(
        default=False, description="Decode every part to exactly its max_tokens (for benchmarks)."
    )
    deadline_s: float | None = Field(
        default=None, gt=0, description="Give up after so many seconds."
    )


def _stop_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


def _token_biases(biases: dict[str, float] | None) -> dict[str, float] | None:
    for token, bias in (biases or {}).items():
        if not _TOKEN_ID.fullmatch(token):
            raise PydanticCustomError(
                "invalid_value",
                'has the key {token}; keys are token ids, such as "50"',
                {"token": repr(token)},
            )
        if not -MAX_BIAS <= bias <= MAX_BIAS:
            raise PydanticCustomError(
                "invalid_value",
                "adds {bias} to token {token}; send {low} to {high}",
                {"bias": f"{bias:g}", "token": token, "low": -MAX_BIAS, "high": MAX_BIAS},
            )
    return biases


_LEAVE_OUT = "leave it out"


class ChatCompletionRequest(WireModel):
    """`POST /v1/chat/completions`, as the `openai` client sends it."""

    model: str = Field(description="The name in `GET /v1/models`.")
    messages: list[ChatMessage] = Field(
        min_length=1, description="The last message is the user's question."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens of the answer, at the most; the plan's are not counted.",
    )
    max_tokens: int | None = Field(default=None, ge=1, description="The same by its older name.")
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="0 is greedy, and the default of this server."
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Choose among the most likely tokens that together have this probability.",
    )
    top_k: int | None = Field(
        default=None,
        ge=-1,
        lt=2**31,
        description="Choose among so many of the most likely tokens; 0 or -1: among all.",
    )
    min_p: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Choose among tokens at least this times as likely as the most likely one.",
    )
    presence_penalty: float | None = Field(
        default=None,
        ge=-2,
        le=2,
        description="Makes tokens that the part holds already less likely; negative, more.",
    )
    frequency_penalty: float | None = Field(
        default=None,
        ge=-2,
        le=2,
        description="The same for each time a token is there.",
    )
    repetition_penalty: float | None = Field(
        default=None,
        gt=0,
        le=2,
        description="The same as a factor, 1 is neutral; default: the deployment's.",
    )
    logit_bias: Annotated[dict[str, float] | None, AfterValidator(_token_biases)] = Field(
        default=None,
        max_length=MAX_BIASED_TOKENS,
        description="Added to the logits of tokens, by token id: -100 to 100.",
    )
    seed: int | None = Field(
        default=None,
        ge=-(2**63),
        lt=2**63,
        description="Equal seeds give equal answers; else random.",
    )
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]] | None,
        BeforeValidator(_stop_list, json_schema_input_type=str | list[str] | None),
    ] = Field(
        default=None, max_length=MAX_STOPS, description="The answer ends before any of these."
    )
    plato: PlatoOptions | None = None

    # Told about the caller; nothing to honour.
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None

    # Accepted where they ask for nothing.
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
            raise _at("messages", "must end with a message of role 'user' that holds a question")
        if self.stream_options is not None and not self.stream:
            raise _at("stream_options", "is for streams only; set stream to true or remove it")
        older, newer = self.max_tokens, self.max_completion_tokens
        if older is not None and newer is not None and older != newer:
            raise _at("max_tokens", "differs from max_completion_tokens; send only one of them")
        options = self.options
        if options.events and not self.stream:
            raise _at("plato.events", "are for streams only; set stream to true")
        if options.mode is Mode.SEQUENTIAL and options.plan is not None:
            raise _at("plato.plan", "is given, but mode 'sequential' has none; remove one of them")
        if options.decode_plan and options.plan is None:
            raise _at("plato.decode_plan", "needs a plan to decode; send one or remove it")
        if options.exact_lengths:
            self._check_lengths(options)
        return self

    def _check_lengths(self, options: PlatoOptions) -> None:
        if options.mode is Mode.SEQUENTIAL:
            if self.answer_tokens is None:
                raise _at("max_tokens", "is needed with plato.exact_lengths")
        elif options.plan is None or any(node.max_tokens is None for node in options.plan):
            raise _at(
                "plato.exact_lengths",
                "needs a plan in which every part has max_tokens, or mode 'sequential' with "
                "max_tokens",
            )

    @property
    def options(self) -> PlatoOptions:
        """The `plato` object, with its defaults if none was sent."""
        return self.plato or PlatoOptions()

    @property
    def answer_tokens(self) -> int | None:
        """Bound of the answer, by either of its names."""
        return self.max_tokens if self.max_tokens is not None else self.max_completion_tokens

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that holds the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


def _at(param: str, message: str) -> PydanticCustomError:
    """An error of the whole request that concerns `param`."""
    return PydanticCustomError("invalid_value", "{message}", {"param": param, "message": message})
