"""The fields that all requests for an answer share, whatever their endpoint.

A parameter that would change the answer and is not supported is rejected. Hints, and parameters
that nobody here knows, are accepted and reported as ignored (`AnswerFields.ignored`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from plato.api.models import split_name
from plato.api.questions.options import PlatoOptions
from plato.api.questions.unsupported import UnsupportedFields
from plato.api.wire import FAIL_FAST, MAX_METADATA, LenientModel, Name, error_at, shown
from plato.runs import Mode
from plato.settings import SamplingFields

MAX_STOPS = 4
MAX_BIAS = 100
MAX_BIASED_TOKENS = 300
MAX_STOP_CHARS = 500
MAX_IGNORED = 32
"""Names of ignored parameters that are reported."""
MAX_NAMES = 1000
"""Names that are looked at for it; there can be hundreds of thousands."""
MAX_IGNORED_CHARS = 64

_TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,8}")
"""Canonical form only, so that no token can appear twice."""


class StreamOptions(LenientModel):
    """Options of a streamed response."""

    include_usage: bool | None = Field(default=None, description="Send the usage in a final chunk.")


def _stop_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


def _token_biases(biases: dict[str, float] | None) -> dict[str, float] | None:
    for token, bias in (biases or {}).items():
        if not _TOKEN_ID.fullmatch(token):
            raise PydanticCustomError(
                "invalid_value",
                'has the key {token}; keys are token ids, such as "50"',
                {"token": shown(token)},
            )
        if not -MAX_BIAS <= bias <= MAX_BIAS:
            raise PydanticCustomError(
                "invalid_value",
                "adds {bias} to token {token}; send {low} to {high}",
                {"bias": f"{bias:g}", "token": token, "low": -MAX_BIAS, "high": MAX_BIAS},
            )
    return biases


class AnswerFields(SamplingFields, UnsupportedFields):
    """How to answer. Sampling parameters that are left out are the deployment's."""

    model: Name | None = Field(
        default=None, description="A name in `GET /v1/models`; default: the only model."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
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
        Annotated[list[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]], FAIL_FAST]
        | None,
        BeforeValidator(_stop_list, json_schema_input_type=str | list[str] | None),
    ] = Field(
        default=None, max_length=MAX_STOPS, description="The answer ends before the first of these."
    )
    tools: list[Any] | None = Field(
        default=None,
        description="Ignored, as the answer is text, unless `tool_choice` demands a call.",
    )
    tool_choice: str | dict[str, Any] | None = Field(
        default=None,
        description="A call of one certain function is decoded sequentially, as JSON under the "
        "schema of its parameters; that of one of several is refused.",
    )
    plato: PlatoOptions | None = None

    metadata: dict[Name, Name] | None = Field(
        default=None, max_length=MAX_METADATA, description="Returned with the answer."
    )
    store: bool | None = Field(
        default=None, description="Every answer is kept for a while; `false` is ignored."
    )

    # Metadata about the caller; ignored.
    user: Name | None = None
    safety_identifier: Name | None = None

    @model_validator(mode="after")
    def _consistent_options(self) -> Self:
        """Rules that span fields; each names the field to change."""
        if self.stream_options is not None and not self.stream:
            raise error_at(
                "stream_options", "requires stream=true; set it, or remove stream_options"
            )
        options = self.options
        if "mode" in options.model_fields_set and options.mode is not self.mode:
            raise error_at(
                "plato.mode",
                f"is '{options.mode}', but the name of the model asks for '{self.mode}'; remove "
                "one of them",
            )
        if options.events and not self.stream:
            raise error_at("plato.events", "requires stream=true; set it, or remove plato.events")
        return self

    @property
    def options(self) -> PlatoOptions:
        """The `plato` object; defaults if none was sent."""
        return self.plato or PlatoOptions()

    @property
    def mode(self) -> Mode:
        """The mode that the name of the model asks for, else that of the `plato` object."""
        named = split_name(self.model)[1] if self.model else None
        return named or self.options.mode

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of the parameters that have no effect, sorted; the first `MAX_IGNORED`."""
        names = islice(self.without_effect(), MAX_NAMES)
        return tuple(sorted({name[:MAX_IGNORED_CHARS] for name in names})[:MAX_IGNORED])

    def without_effect(self) -> Iterator[str]:
        """Names of the parameters that were sent and have no effect, in any order."""
        yield from self.hints
        if self.store is False:
            yield "store"
        if self.stream_options is not None:
            yield from (f"stream_options.{name}" for name in self.stream_options.hints)
