"""The order in which an engine serves requests, as one number for schedulers of others."""

from __future__ import annotations

from plato.engine.protocol import GenerateRequest

_PRIORITIES = 1 << 10
"""Priorities within a run, half of them below 0."""


def rank(request: GenerateRequest) -> int:
    """Lower is earlier: by the age of its run, then by its priority within the run.

    Below 2^53, so that it is exact in JSON, too.
    """
    within = max(0, min(_PRIORITIES - 1, _PRIORITIES // 2 - request.priority))
    return round(request.run_began_unix_s * 1000) * _PRIORITIES + within
