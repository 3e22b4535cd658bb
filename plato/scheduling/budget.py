"""Token budgets of nodes."""

from __future__ import annotations

from plato.runs import Length, Node, RunRequest
from plato.settings import Settings

MIN_PART_TOKENS = 48
"""A part gets at least this many tokens of the caller's `max_tokens`: a long sentence."""
_SHARES = {Length.SHORT: 1, Length.MEDIUM: 2, Length.LONG: 4}


def node_budget(request: RunRequest, node: Node, settings: Settings) -> int:
    """The token budget of one node of a plan.

    The composer cuts the whole answer at the caller's `max_tokens`. A given plan shares it by the
    lengths of its parts. Of a plan that is being decoded, the number of nodes known so far must not
    matter, because the text may not depend on timing; so it is shared among those asked for.
    """
    if node.max_tokens is not None:
        return node.max_tokens
    if request.max_tokens is None:
        return settings.node_max_tokens
    if request.plan:
        shares = sum(map(_share, request.plan))
    else:
        shares = planned_parts(request, settings) * _SHARES[Length.MEDIUM]
    return min(settings.node_max_tokens, -(-request.max_tokens * _share(node) // shares))


def bounded_by_caller(request: RunRequest, node: Node, settings: Settings) -> bool:
    """Whether the caller has set the budget of a node: its own, or its share of `max_tokens`."""
    if node.max_tokens is not None:
        return True
    shared = request.max_tokens is not None
    return shared and node_budget(request, node, settings) < settings.node_max_tokens


def planned_parts(request: RunRequest, settings: Settings) -> int:
    """The number of parts that the model is asked for, at least 2.

    Each gets `MIN_PART_TOKENS` of the caller's `max_tokens`. A given plan has its own number.
    """
    if request.plan:
        return len(request.plan)
    wanted = min(settings.plan_parts, request.max_nodes)
    if request.max_tokens is None:
        return wanted
    return max(2, min(wanted, request.max_tokens // MIN_PART_TOKENS))


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
