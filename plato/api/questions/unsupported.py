"""Parameters that would change the answer and are not supported.

Their neutral values, which clients send, are accepted.
"""

from __future__ import annotations

from typing import Annotated, Any

from plato.api.wire import LenientModel, neutral

_USE_FORMAT = "use response_format with a JSON schema"
_USE_TOOLS = "send tools and tool_choice"
_LEAVE_OUT = "leave it out"


class UnsupportedFields(LenientModel):
    """Accepted only with neutral values."""

    function_call: Annotated[
        str | dict[str, Any] | None, neutral("none", "auto", hint=_USE_TOOLS)
    ] = None
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
    # As vLLM, llama.cpp (also TGI), SGLang and Ollama call what response_format does.
    guided_json: Annotated[None, neutral(hint=_USE_FORMAT)] = None
    guided_regex: Annotated[None, neutral(hint=_USE_FORMAT)] = None
    guided_choice: Annotated[None, neutral(hint=_USE_FORMAT)] = None
    guided_grammar: Annotated[None, neutral(hint=_USE_FORMAT)] = None
    structured_outputs: Annotated[None, neutral(hint=_USE_FORMAT)] = None
    grammar: Annotated[str | None, neutral("", hint=_USE_FORMAT)] = None
    json_schema: Annotated[None, neutral(hint=_USE_FORMAT)] = None
    regex: Annotated[str | None, neutral("", hint=_USE_FORMAT)] = None
    ebnf: Annotated[str | None, neutral("", hint=_USE_FORMAT)] = None
    format: Annotated[str | None, neutral("", hint=_USE_FORMAT)] = None
