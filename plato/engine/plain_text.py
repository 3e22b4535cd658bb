"""Tokenizers for pieces of text: they add nothing at the edges."""

from __future__ import annotations

import copy
import json
from typing import Any

import tokenizers


def text_encoder(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A tokenizer to which the names of special tokens are ordinary text."""
    encoder = copy.deepcopy(edgeless(backend))
    encoder.encode_special_tokens = True
    return encoder


def edgeless(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A tokenizer that adds no leading space and does not truncate; `backend` if it is one."""
    steps = {name: _state(getattr(backend, name)) for name in ("normalizer", "pre_tokenizer")}
    changed = [_remove_leading_space(step) for step in steps.values()]
    if not any(changed) and backend.truncation is None and backend.padding is None:
        return backend
    spec = json.loads(backend.to_str()) | steps | {"truncation": None, "padding": None}
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


def _state(step: Any) -> dict[str, Any] | None:
    """The specification of a step or a sequence of steps; the whole tokenizer's takes 20 MB."""
    state: dict[str, Any] | None = None if step is None else json.loads(step.__getstate__())
    return state


def _remove_leading_space(step: dict[str, Any] | None) -> bool:
    """Change a step in place; returns whether that was necessary."""
    if step is None:
        return False
    changed = False
    for part in step.get("pretokenizers") or step.get("normalizers") or [step]:
        for kind, name, value in (
            ("Metaspace", "prepend_scheme", "never"),
            ("ByteLevel", "add_prefix_space", False),
            ("Prepend", "prepend", ""),
        ):
            if part["type"] == kind and part[name] != value:
                part[name] = value
                changed = True
    return changed
