"""Messages as OpenAI's clients send them, and the text conversation that the model is given.

The model reads and writes text only. What clients keep of earlier tool calls and their results is
rendered as text, so that the model sees what happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from plato.api.wire import FAIL_FAST, LenientModel, Name, neutral, shown
from plato.runs import Message

MAX_TEXT_PARTS = 1000
"""Of the content of a message."""
MAX_TOOL_CALLS = 128
"""Of a message, as at OpenAI."""

SEPARATOR = "\n\n"
TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Types of content parts, and the field that holds the text of each."""


def _plain_text(content: Any, info: ValidationInfo) -> Any:
    """Message content as one string; text parts are joined with newlines."""
    if content is None:
        if info.data.get("role") == "assistant":
            # A tool call or a refusal, which have fields of their own.
            return ""
        raise PydanticCustomError("missing", "is missing")
    if not isinstance(content, list):
        if isinstance(content, dict):
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
    return "\n".join(_text_of_part(index, part) for index, part in enumerate(content))


def _text_of_part(index: int, part: Any) -> str:
    """The text of a content part; its other fields (`cache_control`) have no effect."""
    kind = part.get("type") if isinstance(part, dict) else None
    name = TEXT_PARTS.get(kind) if isinstance(kind, str) else None
    if name is None:
        raise PydanticCustomError(
            "unsupported_value",
            "part {index} is of type {kind}, but the model accepts text only; "
            "send parts of type 'text'",
            {"index": index, "kind": shown(kind)},
        )
    text = part.get(name)
    if not isinstance(text, str):
        raise PydanticCustomError(
            "invalid_type", "part {index} has no string '{name}'", {"index": index, "name": name}
        )
    return text


class CalledFunction(LenientModel):
    """The name and arguments of a tool call."""

    name: Name
    arguments: str = ""


class CustomCall(LenientModel):
    """A call of a tool that takes text."""

    name: Name
    input: str = ""


class ToolCall(LenientModel):
    """A call that an earlier answer made, of either type."""

    id: Name | None = None
    function: CalledFunction | None = None
    custom: CustomCall | None = None

    @property
    def name(self) -> str:
        """The name of the tool."""
        called = self.function or self.custom
        return called.name if called is not None else "a tool"

    @property
    def text(self) -> str:
        """The call as the model reads it."""
        if self.custom is not None:
            return f"Call {self.custom.name}({self.custom.input})"
        arguments = self.function.arguments if self.function is not None else ""
        return f"Call {self.name}({arguments})"


class ChatMessage(LenientModel):
    """One message of the conversation. Earlier answers can be sent back unchanged."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"] = Field(
        description="`developer` is treated as `system`; `tool` and `function` have the result of "
        "a call, which the model reads as text."
    )
    name: Name | None = Field(
        default=None, description="Of the function, if it is its result; else it has no effect."
    )
    tool_calls: Annotated[list[ToolCall], FAIL_FAST] | None = Field(
        default=None, max_length=MAX_TOOL_CALLS
    )
    function_call: CalledFunction | None = None
    tool_call_id: Name | None = None
    refusal: str | None = None
    audio: Annotated[None, neutral(hint="the model accepts text only")] = None
    content: Annotated[
        str,
        BeforeValidator(_plain_text, json_schema_input_type=str | list[dict[str, Any]] | None),
    ] = Field(default=None, validate_default=True)

    @property
    def is_result(self) -> bool:
        """Whether it is the result of a call."""
        return self.role in ("tool", "function")

    @property
    def ignored(self) -> Iterator[str]:
        """Names of its fields that have no effect."""
        yield from self.hints
        if self.name is not None and not self.is_result:
            yield "name"


def to_conversation(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """The messages as text, with the roles that chat templates know.

    Results of calls are messages of the user. Those that follow each other are one message with
    the user's own that follows, because some templates demand alternating roles.
    """
    turns: list[tuple[str, list[str]]] = []
    """Roles, and the texts of each message; joined once, as there can be thousands."""
    names: dict[str, str] = {}
    """Of the tools, by the ids of their calls."""
    after_result = False
    for message in messages:
        for call in message.tool_calls or ():
            if call.id is not None:
                names[call.id] = call.name
        role, text = _render(message, names)
        if after_result and role == "user":
            turns[-1][1].append(text)
        else:
            turns.append((role, [text]))
        after_result = message.is_result or (after_result and role == "user")
    return tuple(Message(role, SEPARATOR.join(texts)) for role, texts in turns)


def _render(message: ChatMessage, names: dict[str, str]) -> tuple[str, str]:
    """The role and the text of a message."""
    if message.is_result:
        name = message.name or names.get(message.tool_call_id or "", "the call")
        return "user", f"Result of {name}:\n{message.content}"
    if message.role != "assistant":
        return ("system" if message.role == "developer" else message.role), message.content
    texts = [message.content or message.refusal or ""]
    if message.function_call is not None:
        texts.append(ToolCall(function=message.function_call).text)
    texts += [call.text for call in message.tool_calls or ()]
    return "assistant", SEPARATOR.join(filter(None, texts))
