"""How many tokens a node may decode."""

from __future__ import annotations

from plato.runs import Node, RunRequest


def node_budget(request: RunRequest, node: Node, node_max_tokens: int) -> int:
    """The token budget of one node of a plan.

    The caller's `max_tokens` bounds the whole answer, and the composer cuts there. A plan that
    was handed in is split evenly. Of one that is still being decoded only this is sure: it has
    at least two parts, so none gets more than half. The rule must not look at how many parts are
    known by now: the same question, plan and seed give the same text, whatever the timing.
    """
    if node.max_tokens is not None:
        return node.max_tokens
    if request.max_tokens is None:
        return node_max_tokens
    parts = len(request.plan) if request.plan else 2
    share = -(-request.max_tokens // parts)
    return min(node_max_tokens, share)


def sequential_budget(request: RunRequest, default: int, room: int) -> int:
    """The token budget of a sequential answer, where the context leaves `room` tokens.

    A plan of one part ends up here; the part's own budget holds.
    """
    given = request.plan[0].max_tokens if request.plan and len(request.plan) == 1 else None
    return min(given or request.max_tokens or default, room)
