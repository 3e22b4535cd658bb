"""Scopes: which tenants share which tokens."""

from __future__ import annotations

from collections.abc import Iterator

from plato.engine.prompt import Prompt

PUBLIC = ""


def scope_runs(prompt: Prompt, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Split positions [start, end) of a prompt and its output by scope: (scope, from, to)."""
    boundary = min(max(prompt.public_tokens, start), end)
    if start < boundary:
        yield PUBLIC, start, boundary
    if boundary < end:
        # The prefix separates a tenant with an empty name from the public scope.
        yield f"tenant:{prompt.tenant}", boundary, end
