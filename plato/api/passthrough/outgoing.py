"""A request as an upstream gets it: as the caller sent it, but for what Plato decides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from plato.api.models import is_served
from plato.settings import Settings

CHARS_PER_TOKEN = 4
"""Of English text; only for estimates."""
_TEXT = frozenset({"messages", "input", "instructions", "prompt", "content", "text", "output"})
"""Fields that are text, or objects with such fields; others have images, sound and files, too."""
DECODING = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses"})


@dataclass(frozen=True, slots=True)
class Passed:
    """A request that an upstream answers."""

    path: str
    fields: Mapping[str, Any]
    """Of its body."""
    tenant: str
    request_id: str

    @property
    def decodes(self) -> bool:
        """Whether the answer is text, decoded behind a prefix that may be cached."""
        return self.path in DECODING

    @property
    def opening(self) -> bytes:
        """Digest of what all turns of a conversation begin with: all up to the first question."""
        opening = to_json([self.tenant, *_opening(self.fields)], inf_nan_mode="constants")
        return hashlib.blake2b(opening, digest_size=16).digest()

    @property
    def prompt_tokens(self) -> int:
        """An estimate: the characters of the request's text / 4, or the tokens that it gives."""
        return _chars(self.fields) // CHARS_PER_TOKEN

    def body(self, settings: Settings, model: str, salt: str | None) -> bytes:
        """For an upstream whose model is called `model`.

        The salt keeps a tenant's cached prefixes apart, so that of the caller never counts. Names
        of other models are the upstream's own.
        """
        fields = {**self.fields}
        for name in ("plato", "cache_salt"):
            fields.pop(name, None)
        if is_served(fields.get("model"), settings):
            fields["model"] = model
        if salt is not None:
            fields["cache_salt"] = salt
        return to_json(fields, inf_nan_mode="constants")


def read_fields(body: bytes) -> dict[str, Any] | None:
    """The fields of a body; None if it is no JSON object."""
    try:
        fields = from_json(body)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def _chars(value: Any) -> int:
    """Characters of the text in a part of a body."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, int):
        # A token: prompts of completions can consist of them.
        return CHARS_PER_TOKEN
    if isinstance(value, list):
        return sum(map(_chars, value))
    if isinstance(value, Mapping):
        return sum(_chars(part) for name, part in value.items() if name in _TEXT)
    return 0


def _opening(fields: Mapping[str, Any]) -> Iterator[Any]:
    yield fields.get("instructions")
    messages = fields.get("messages") or fields.get("input") or fields.get("prompt")
    if not isinstance(messages, list):
        yield messages
        return
    for message in messages:
        yield message
        if isinstance(message, dict) and message.get("role") == "user":
            return
