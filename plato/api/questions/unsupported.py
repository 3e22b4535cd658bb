"""Parameters that would change the answer and are not supported.

Their neutral values, which clients send, are accepted.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from plato.api.wire import LenientModel, neutral

_NO_TOOL_CALLS = "the model answers in text and calls no tools; send 'auto' or leave it out"
_USE_FORMAT = "use response_format with a JSON schema"
_LEAVE_OUT = "leave it out"


def _no_forced_call(choice: Any) -> Any:
    """Accept a choice of tools that allows an answer in text."""
    if choice is None or choice in ("none", "auto"):
        return choice
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        # In chat completions the mode is in an object of its own, in responses it is not.
        inner = choice.get("allowed_tools")
        mode = (inner if isinstance(inner, dict) else choice).get("mode")
        if mode == "auto":
            return choice
    raise PydanticCustomError(
        "unsupported_value", "forces a tool call, but {hint}", {"hint": _NO_TOOL_CALLS}
    )


ToolChoice = Annotated[
    Any, BeforeValidator(_no_forced_call, json_schema_input_type=str | dict[str, Any] | None)
]


class UnsupportedFields(LenientModel):
    """Accepted only with neutral values."""

    tool_choice: ToolChoice = None
    function_call: ToolChoice = None
    n: Annotated[int | None, neutral(1, hint="send one request for each answer")] = None
    best_of: Annotated[int | None, neutral(1, hint=_LEAVE_OUT)] = None
    use_beam_search: Annotated[bool | None, neutral(False, hint=_LEAVE_OUT)] = None
    logprobs: Annotated[bool | None, neutral(False, hint="leave it out or send false")] = None
    top_logprobs: Annotated[int | None, neutral(0, hint="leave it out or send 0")] = None
    prompt_logprobs: Annotated[int | None, neutral(hint=_LEAVE_OUT)] = None
    modalities: Annotated[list[str] | None, neutral(["text"], hint='use ["text"]')] = None
    audio: Annotated[None, neutral(hint="the model writes text only")] = None
    web_search_options: Annotated[None, neutral(hint=_LEAVE_OUT)] = None
    moderation: Annotated[None, neutral(hint=_LEAVE_OUT)] = None
    documents: Annotated[list[Any] | None, neutral([], hint="put their text into the messages")] = (
        None
    )
    continue_final_message: Annotated[
        bool | None, neutral(False, hint="end with a message of the user")
    ] = None
    guided_json: Annotated[None, neutral(hint=_USE_FORMAT)] = None
    guided_regex: Annotated[None, neutral(hint=_USE_FORMAT)] = None
    guided_choice: Annotated[None, neutral(hint=_USE_FORMAT)] = None
    guided_grammar: Annotated[None, neutral(hint=_USE_FORMAT)] = None
    structured_outputs: Annotated[None, neutral(hint=_USE_FORMAT)] = None
