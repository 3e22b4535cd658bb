"""Token budgets of nodes."""

from __future__ import annotations

from plato.runs import Node, RunRequest


def node_budget(request: RunRequest, node: Node, node_max_tokens: int) -> int:
    """The token budget of one node of a plan.

    The composer cuts the whole answer at the caller's `max_tokens`. A given plan shares it evenly.
    A plan that is being decoded has at least two nodes, so none gets more than half; the number of
    nodes known so far must not matter, because the text may not depend on timing.
    """
    if node.max_tokens is not None:
        return node.max_tokens
    if request.max_tokens is None:
        return node_max_tokens
    nodes = len(request.plan) if request.plan else 2
    share = -(-request.max_tokens // nodes)
    return min(node_max_tokens, share)


def sequential_budget(request: RunRequest, default: int, room: int) -> int:
    """The token budget of a sequential answer, where the context leaves `room` tokens.

    A plan of one node is answered sequentially, within the node's own budget.
    """
    given = request.plan[0].max_tokens if request.plan and len(request.plan) == 1 else None
    return min(given or request.max_tokens or default, room)
