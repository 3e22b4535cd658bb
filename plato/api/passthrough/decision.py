"""Which requests are planned, in front of an upstream that could answer all of them.

A request is planned only if its parts can honour all that it says; a parameter that nobody here
knows may mean something to the upstream. Who asks for a plan, or uses another option of the `plato`
object, gets Plato's answer, or is told why not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plato.api.models import split_name
from plato.api.questions.messages import TEXT_PARTS
from plato.runs import Mode

_SAMPLING = frozenset(
    {
        *("temperature", "top_p", "top_k", "min_p", "seed", "stop", "logit_bias"),
        *("repetition_penalty", "presence_penalty", "frequency_penalty"),
    }
)
_ABOUT_THE_CALL = frozenset(
    {
        *("model", "plato", "stream", "metadata", "store", "user"),
        *("safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier"),
        *("prediction", "parallel_tool_calls"),
    }
)
"""They do not change what the answer says."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a request arrives."""

    planned: frozenset[str] = frozenset()
    """Parameters that the parts of an answer honour, whatever their value; none: nothing is
    planned here."""
    own: frozenset[str] = frozenset()
    """Parameters that an upstream must not see."""
    optional: bool = False
    """Whether servers may lack it; then the answer is Plato's."""


CHAT = Endpoint(_SAMPLING | _ABOUT_THE_CALL | {"messages", "max_tokens", "max_completion_tokens"})
COMPLETIONS = Endpoint(optional=True)
RESPONSES = Endpoint(
    _SAMPLING | _ABOUT_THE_CALL | {"input", "instructions", "max_output_tokens"},
    # Of responses that are stored: the upstream does not know whose they are.
    own=frozenset({"background", "previous_response_id", "conversation", "prompt"}),
    optional=True,
)

_NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "response_format": ({"type": "text"},),
    "text": ({"format": {"type": "text"}},),
    "modalities": (["text"],),
    "truncation": ("disabled",),
    "stream_options": ({"include_usage": True}, {"include_usage": False}),
}
"""Values that change nothing, as null does."""
_OFF = frozenset(
    {
        *("logprobs", "top_logprobs", "tools", "functions", "include", "reasoning", "echo"),
        *("stream_options", "chat_template_kwargs", "audio", "web_search_options"),
        *("use_beam_search", "ignore_eos", "return_token_ids", "background"),
    }
)
"""Parameters that change nothing if they are false, 0 or empty. Others may be on by default."""
_ROLES = ("system", "developer", "user", "assistant")


def wants_plato(fields: Mapping[str, Any], endpoint: Endpoint) -> bool:
    """Whether the caller asks for what only Plato has: a plan, or an option of its answers."""
    options = fields.get("plato")
    if options is not None and (
        not isinstance(options, dict)
        or not options.keys() <= {"mode"}
        or options.get("mode", Mode.AUTO) not in (Mode.AUTO, Mode.SEQUENTIAL)
    ):
        return True
    if any(fields.get(name) for name in endpoint.own):
        return True
    return _named_mode(fields) not in (None, Mode.SEQUENTIAL)


def may_be_planned(fields: Mapping[str, Any], endpoint: Endpoint) -> bool:
    """Whether a request is text alone, has nothing else to be honoured, and leaves the choice.

    `wants_plato` does not hold for it.
    """
    options = fields.get("plato") or {}
    if Mode.SEQUENTIAL in (_named_mode(fields), options.get("mode")):
        return False
    meaning = {name for name, value in fields.items() if not _is_neutral(name, value)}
    if fields.get("tool_choice") == "none" or not fields.get("tools"):
        # There is nothing to call.
        meaning -= {"tools", "tool_choice"}
    messages = fields.get("messages") or fields.get("input")
    return meaning <= endpoint.planned and (
        isinstance(messages, str)
        or (isinstance(messages, list) and all(map(_is_plain_message, messages)))
    )


def _named_mode(fields: Mapping[str, Any]) -> Mode | None:
    name = fields.get("model")
    return split_name(name)[1] if isinstance(name, str) else None


def _is_neutral(name: str, value: Any) -> bool:
    if value is None or value in _NEUTRAL.get(name, ()):
        return True
    return name in _OFF and value in (False, [], {})


def _is_plain_message(message: Any) -> bool:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        return False
    others = message.keys() - {"role", "content"}
    if any(message[name] not in (None, [], "message") for name in others):
        return False
    content = message.get("content")
    return isinstance(content, str) or (
        isinstance(content, list) and all(map(_is_text_part, content))
    )


def _is_text_part(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and isinstance(part.get("type"), str)
        and (TEXT_PARTS.get(part["type"]) == "text")
    )
