"""The call of a function that a request demands.

The model answers in text, so it calls no tools by itself. A demanded call of one certain function
leaves it no choice: the answer is the arguments, JSON under the function's schema, as with
`response_format`. Chat completions nest a function in its tool, responses do not; both are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticCustomError

from plato.api.wire import MAX_NAME_CHARS, error_at, shown

NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class Function:
    """A function that the answer has to call."""

    name: str
    parameters: dict[str, Any]
    """The JSON schema of its arguments."""


def demanded_function(choice: object, tools: Sequence[object]) -> Function | None:
    """The function whose call `choice`, a `tool_choice`, demands; None if text will do.

    Raises `PydanticCustomError` if that is not exactly one function of `tools`.
    """
    wanted: Sequence[object]
    match choice:
        case None | "none" | "auto":
            return None
        case {"type": "allowed_tools", "mode": "auto"} | {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto"},
        }:
            return None
        case "required":
            wanted = tools
        case {"type": "allowed_tools", "mode": "required", "tools": list(wanted)} | {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": list(wanted)},
        }:
            pass
        case {"type": "function"}:
            wanted = [choice]
        case _:
            raise _unsupported(
                f"is {shown(choice)}, but only calls of functions are supported; send 'auto', or "
                "name a function"
            )
    names = {name for tool in wanted if (name := _name(tool)) is not None}
    found = {name: tool for tool in tools if (name := _name(tool)) in names}
    if not found:
        raise _unsupported("demands the call of a function that is not in 'tools'; add it there")
    if len(found) > 1:
        raise _unsupported(
            "demands a call without saying of which function, and the model does not choose among "
            "several; name one, or send 'auto' for an answer in text"
        )
    ((name, tool),) = found.items()
    if len(name) > MAX_NAME_CHARS:
        raise error_at("tools", f"names a function with more than {MAX_NAME_CHARS} characters")
    return Function(name, _parameters(tool))


def _name(tool: object) -> str | None:
    match tool:
        case {"function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return name
    return None


def _parameters(tool: object) -> dict[str, Any]:
    match tool:
        case {"function": {"parameters": parameters}} | {"parameters": parameters}:
            pass
        case _:
            parameters = None
    if parameters is None:
        return NO_ARGUMENTS
    if not isinstance(parameters, dict):
        raise error_at("tools", "has parameters that are not a JSON schema; send an object")
    return parameters


def _unsupported(message: str) -> PydanticCustomError:
    context = {"param": "tool_choice", "message": message}
    return PydanticCustomError("unsupported_value", "{message}", context)
