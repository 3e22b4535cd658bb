"""The schema of requests to `/v1/responses`, and the chat completion that asks for the same."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from plato.api.questions.answer_fields import AnswerFields
from plato.api.questions.messages import ChatMessage
from plato.api.questions.requests import validated
from plato.api.questions.schemas import ChatCompletionRequest, as_chat
from plato.api.responses.references import REFERENCE
from plato.api.wire import FAIL_FAST, TOKEN_COUNT, LenientModel, neutral, shown
from plato.errors import RunNotFoundError

_WHOLE = "answers are not continued by reference; send the whole conversation as input"
CHAT_NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
}
"""See `in_callers_names`."""

_MESSAGE = frozenset({"role", "content"})
_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
"""Types of calls, and the field of each that holds what the tool was called with."""
_OUTPUTS = ("function_call_output", "custom_tool_call_output")


def _as_messages(given: Any) -> Any:
    """Input items as messages of a chat; a text is the user's.

    Raises `PydanticCustomError`, and `RunNotFoundError` for a reference that `with_items` has left.
    """
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list):
        return given
    messages: list[dict[str, Any]] = []
    for index, item in enumerate(given):
        kind = item.get("type", "message") if isinstance(item, dict) else None
        kind = kind if isinstance(kind, str) else shown(kind)
        if kind == "message":
            messages.append({name: value for name, value in item.items() if name in _MESSAGE})
        elif kind in _CALLS:
            _add_call(messages, item, _CALLS[kind])
        elif kind in _OUTPUTS:
            content, call = item.get("output"), item.get("call_id")
            messages.append({"role": "tool", "content": content, "tool_call_id": call})
        elif kind == REFERENCE:
            raise RunNotFoundError(
                f"Item with id {shown(item.get('id'))} not found: answers expire, and only the API "
                "key that asked for one can refer to it; send the item itself (in the AI SDK: "
                "providerOptions.openai.store = false)",
                param="input",
            )
        elif kind != "reasoning":
            # What another model thought is nothing to this one.
            raise PydanticCustomError(
                "unsupported_value",
                "item {index} is of type {kind}; send messages, and calls of tools with their "
                "outputs",
                {"index": index, "kind": shown(kind)},
            )
    return messages


def _add_call(messages: list[dict[str, Any]], item: dict[str, Any], argument: str) -> None:
    """Add a call to the answer that made it: some templates demand alternating roles."""
    if not messages or messages[-1].get("role") != "assistant":
        messages.append({"role": "assistant", "content": None})
    called = {"name": item.get("name"), argument: item.get(argument, "")}
    kind = "function" if argument == "arguments" else "custom"
    messages[-1].setdefault("tool_calls", []).append({"id": item.get("call_id"), kind: called})


class TextFormat(LenientModel):
    """The form of an answer; its schema is not nested, as it is in chat completions."""

    type: Literal["text", "json_object", "json_schema"]
    definition: dict[str, Any] | None = Field(default=None, alias="schema")

    def as_chat(self) -> dict[str, Any]:
        """The same as `response_format`."""
        if self.definition is None:
            return {"type": self.type}
        return {"type": self.type, "json_schema": {"schema": self.definition}}


class TextOptions(LenientModel):
    """How the text is written."""

    format: TextFormat | None = None


class ResponsesRequest(AnswerFields):
    """`POST /v1/responses`, as the `openai` client and the AI SDK send it."""

    input: Annotated[
        Annotated[list[ChatMessage], FAIL_FAST],
        BeforeValidator(_as_messages, json_schema_input_type=str | list[dict[str, Any]]),
    ] = Field(
        min_length=1,
        description="The question, or the items of a conversation.",
        examples=["Why is the sea salty?"],
    )
    instructions: str | None = Field(default=None, description="The system message.")
    max_output_tokens: int | None = Field(
        default=None,
        ge=1,
        lt=TOKEN_COUNT,
        description="Maximum number of tokens of the answer, without the plan.",
    )
    text: TextOptions | None = None
    background: bool | None = Field(
        default=None, description="Answer at once, and go on without the client."
    )

    # Accepted only with neutral values.
    previous_response_id: Annotated[None, neutral(hint=_WHOLE)] = None
    conversation: Annotated[None, neutral(hint=_WHOLE)] = None
    prompt: Annotated[None, neutral(hint="send its text as instructions and input")] = None

    def as_chat(self) -> ChatCompletionRequest:
        """The chat completion request for the same answer.

        Raises `InvalidRequestError` in the names of chat completions; see `in_callers_names`.
        """
        messages = list(self.input)
        if self.instructions is not None:
            messages.insert(0, ChatMessage(role="system", content=self.instructions))
        answer = self.text.format if self.text is not None else None
        hints = self.text.hints if self.text is not None else ()
        with validated():
            return as_chat(
                self,
                messages,
                max_tokens=self.max_output_tokens,
                response_format=answer.as_chat() if answer is not None else None,
                **{f"text.{name}": True for name in hints},
            )
