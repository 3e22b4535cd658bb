"""Scopes: for which models and tenants equal tokens have equal KV."""

from __future__ import annotations

from collections.abc import Iterator

from plato.engine.prompt import Prompt

ROOT = ""


def scope_runs(prompt: Prompt, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Split positions [start, end) of a prompt and its output by scope: (scope, from, to)."""
    boundary = min(max(prompt.public_tokens, start), end)
    if start < boundary:
        yield f"public:{prompt.fingerprint}", start, boundary
    if boundary < end:
        yield f"tenant:{prompt.fingerprint}:{prompt.tenant}", boundary, end
