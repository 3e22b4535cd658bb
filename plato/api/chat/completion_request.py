"""The schema of requests to continue a text."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from plato.api.questions.answer_fields import AnswerFields
from plato.api.wire import TOKEN_COUNT, error_at, neutral
from plato.runs import Mode

CHAT_NAMES = {"messages": "prompt"}
"""See `in_callers_names`."""


def _only_text(prompt: Any) -> Any:
    """The prompt as one text."""
    if isinstance(prompt, list) and len(prompt) == 1:
        (prompt,) = prompt
    if isinstance(prompt, list):
        raise PydanticCustomError(
            "unsupported_value", "must be one text; send one request for each, and no token ids"
        )
    return prompt


class CompletionRequest(AnswerFields):
    """`POST /v1/completions`: the model continues `prompt`, sequentially."""

    prompt: Annotated[str, BeforeValidator(_only_text, json_schema_input_type=str | list[str])] = (
        Field(
            description="The text to continue, without a chat template.",
            examples=["The sea is salty because"],
        )
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        lt=TOKEN_COUNT,
        description="Maximum number of tokens; default: the deployment's.",
    )

    # Accepted only with neutral values.
    suffix: Annotated[str | None, neutral("", hint="leave it out")] = None
    tool_choice: Annotated[
        str | dict[str, Any] | None,
        neutral("none", "auto", hint="use /v1/chat/completions for calls of tools"),
    ] = None
    echo: Annotated[bool | None, neutral(False, hint="put the prompt in front yourself")] = None
    logprobs: Annotated[int | None, neutral(hint="leave it out")] = None  # type: ignore[assignment]

    @model_validator(mode="after")
    def _sequential(self) -> CompletionRequest:
        if not self.prompt.strip():
            raise error_at("prompt", "must contain text")
        options = self.options
        for name, given in (
            # Not `self.mode`: a name of the model is only a preference, and the run falls back.
            ("mode", options.mode not in (Mode.AUTO, Mode.SEQUENTIAL)),
            ("plan", options.plan is not None),
        ):
            if given:
                raise error_at(
                    f"plato.{name}",
                    "asks for parts, and a completion is one text; remove it, or use "
                    "/v1/chat/completions",
                )
        return self
