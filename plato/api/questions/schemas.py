"""The schema of chat completion requests: OpenAI's, with the `plato` extension.

Requests of other endpoints become one of these (`as_chat`). Checks that need the deployment's
settings are in `requests`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from plato.api.questions.answer_fields import AnswerFields
from plato.api.questions.messages import ChatMessage
from plato.api.questions.options import PlatoOptions
from plato.api.questions.response_format import ResponseFormat
from plato.api.questions.tools import Function, demanded_function
from plato.api.wire import FAIL_FAST, TOKEN_COUNT, error_at
from plato.errors import InvalidRequestError
from plato.runs import Mode


class ChatCompletionRequest(AnswerFields):
    """`POST /v1/chat/completions`, as the `openai` client sends it."""

    messages: Annotated[list[ChatMessage], FAIL_FAST] = Field(
        min_length=1,
        description="The last message is the user's question.",
        examples=[[{"role": "user", "content": "Why is the sea salty?"}]],
    )
    max_completion_tokens: int | None = Field(
        default=None,
        ge=1,
        lt=TOKEN_COUNT,
        description="Maximum number of tokens of the answer, without the plan.",
    )
    max_tokens: int | None = Field(
        default=None, ge=1, lt=TOKEN_COUNT, description="Older name of the same limit."
    )
    response_format: ResponseFormat | None = Field(
        default=None, description="JSON, or JSON under a schema, is answered sequentially."
    )

    functions: list[Any] | None = Field(default=None, description="Ignored; use `tools`.")

    @model_validator(mode="after")
    def _consistent(self) -> ChatCompletionRequest:
        """Rules that span fields; each names the field to change."""
        last = self.messages[-1]
        if not last.is_result and (last.role != "user" or not last.content.strip()):
            raise error_at(
                "messages",
                "must end with a message of role 'user' that contains a question, or with the "
                "result of a tool",
            )
        older, newer = self.max_tokens, self.max_completion_tokens
        if older is not None and newer is not None and older != newer:
            raise error_at(
                "max_tokens", "differs from max_completion_tokens; send only one of them"
            )
        options = self.options
        if self.mode is Mode.SEQUENTIAL and options.plan is not None:
            raise error_at(
                "plato.plan", "cannot be combined with mode 'sequential'; remove one of them"
            )
        if options.decode_plan and options.plan is None:
            raise error_at("plato.decode_plan", "requires plato.plan; send one or remove it")
        if options.exact_lengths:
            self._check_lengths(options)
        if self.demanded_function is not None:
            self._check_structured(options, "a tool_choice that demands a call")
        elif self.response_format is not None and self.response_format.type != "text":
            self._check_structured(options, "a response_format other than text")
        return self

    def _check_lengths(self, options: PlatoOptions) -> None:
        if self.mode is Mode.SEQUENTIAL:
            if self.answer_tokens is None:
                raise error_at("max_tokens", "is required with plato.exact_lengths")
        elif options.plan is None or any(node.max_tokens is None for node in options.plan):
            raise error_at(
                "plato.exact_lengths",
                "requires a plan in which every part has max_tokens, or mode 'sequential' with "
                "max_tokens",
            )

    def _check_structured(self, options: PlatoOptions, demand: str) -> None:
        """One grammar describes the whole answer, so its parts cannot be decoded on their own."""
        for name, given in (
            # Not `self.mode`: a name of the model is only a preference, and the run falls back.
            ("mode", options.mode in (Mode.PLATO, Mode.SKELETON)),
            ("plan", options.plan is not None),
            ("exact_lengths", options.exact_lengths),
        ):
            if given:
                raise error_at(
                    f"plato.{name}", f"cannot be combined with {demand}; remove one of them"
                )

    @property
    def answer_tokens(self) -> int | None:
        """Maximum number of tokens of the answer, by either name."""
        return self.max_tokens if self.max_tokens is not None else self.max_completion_tokens

    @property
    def demanded_function(self) -> Function | None:
        """The function that the answer has to call; None if it is text."""
        return demanded_function(self.tool_choice, self.tools or ())

    def without_effect(self) -> Iterator[str]:
        """See `AnswerFields.without_effect`."""
        yield from super().without_effect()
        if self.tools and self.demanded_function is None:
            yield "tools"
        if self.functions:
            yield "functions"
        for message in self.messages:
            yield from (f"messages.{name}" for name in message.ignored)


def as_chat(
    body: AnswerFields, messages: Sequence[ChatMessage], **fields: object
) -> ChatCompletionRequest:
    """The chat completion request that asks for the same answer as `body`.

    `fields` are those that `body` has by other names. Raises `ValidationError`, and
    `InvalidRequestError` for what only chat completions have.
    """
    for name in ("events", "reasoning"):
        if getattr(body.options, name):
            raise InvalidRequestError(
                f"'plato.{name}' is not supported here; use /v1/chat/completions, or follow "
                "/v1/runs/{id}/events",
                param=f"plato.{name}",
            )
    shared = AnswerFields.model_fields.keys() & body.model_fields_set
    return ChatCompletionRequest.model_validate(
        {
            **(body.model_extra or {}),
            **{name: getattr(body, name) for name in shared},
            **{name: value for name, value in fields.items() if value is not None},
            "messages": list(messages),
        }
    )
