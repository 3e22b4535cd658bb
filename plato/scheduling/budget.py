"""Token budgets of nodes."""

from __future__ import annotations

from plato.runs import Length, Node, RunRequest

MIN_PART_TOKENS = 48
"""A part gets at least this many tokens of the caller's `max_tokens`: two or three sentences."""
EXPECTED_PARTS = 4
"""Parts of a plan while it is being decoded: the default model's have 4.0 on average."""
_SHARES = {Length.SHORT: 1, Length.MEDIUM: 2, Length.LONG: 4}


def node_budget(request: RunRequest, node: Node, node_max_tokens: int) -> int:
    """The token budget of one node of a plan.

    The composer cuts the whole answer at the caller's `max_tokens`. A given plan shares it by the
    lengths of its parts. Of a plan that is being decoded, the number of nodes known so far must not
    matter, because the text may not depend on timing; so it is shared among the expected number.
    """
    if node.max_tokens is not None:
        return node.max_tokens
    if request.max_tokens is None:
        return node_max_tokens
    if request.plan:
        shares = [_share(part) for part in request.plan]
    else:
        shares = [_SHARES[Length.MEDIUM]] * min(EXPECTED_PARTS, planned_nodes(request))
    return min(node_max_tokens, -(-request.max_tokens * _share(node) // sum(shares)))


def planned_nodes(request: RunRequest) -> int:
    """The maximum number of nodes of a decoded plan: each gets `MIN_PART_TOKENS`; at least 2."""
    if request.max_tokens is None or request.plan:
        return request.max_nodes
    return max(2, min(request.max_nodes, request.max_tokens // MIN_PART_TOKENS))


def too_short_to_split(request: RunRequest) -> bool:
    """Whether `max_tokens` leaves too little for two parts."""
    return request.max_tokens is not None and request.max_tokens < 2 * MIN_PART_TOKENS


def sequential_budget(request: RunRequest, default: int, room: int) -> int:
    """The token budget of a sequential answer, where the context leaves `room` tokens.

    A plan of one node is answered sequentially, within the node's own budget.
    """
    given = request.plan[0].max_tokens if request.plan and len(request.plan) == 1 else None
    return min(given or request.max_tokens or default, room)


def _share(node: Node) -> int:
    return _SHARES[node.length or Length.MEDIUM]
