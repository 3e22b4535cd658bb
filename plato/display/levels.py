"""Which parts of a plan stand beside each other."""

from __future__ import annotations

from collections.abc import Sequence

from plato.runs import NodeReport


def levels(nodes: Sequence[NodeReport]) -> list[list[NodeReport]]:
    """The parts, in plan order, by the number of parts on the longest path to them.

    A part is one level below the lowest part that it needs, so the parts of a level need nothing of
    each other.
    """
    depths: dict[int, int] = {}
    found: list[list[NodeReport]] = []
    for node in nodes:
        depth = max((depths.get(other, -1) + 1 for other in node.dependencies), default=0)
        depths[node.number] = depth
        if depth == len(found):
            found.append([])
        found[depth].append(node)
    return found
