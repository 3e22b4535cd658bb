"""In which order the leaves of the KV tree go when memory runs out."""

from __future__ import annotations

import heapq
import itertools
import math

from plato.engine.torch.node import TreeNode


class EvictionOrder:
    """The leaves that nobody needs, least worth keeping first.

    Unpinned ones before pinned ones; of the pinned ones those that are needed last first; among
    equals the least recently used. A heap whose entries are void when their node has a newer
    ticket, so a change costs the logarithm of the number of leaves.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, TreeNode]] = []
        self._tickets = itertools.count(1)
        self._count = 0

    def put(self, node: TreeNode) -> None:
        """Enter a leaf, or enter it anew after a change of its worth."""
        if not node.ticket:
            self._count += 1
        node.ticket = next(self._tickets)
        heapq.heappush(self._heap, (_worth(node), node.last_used, node.ticket, node))
        if len(self._heap) > 2 * self._count + 64:
            self._heap = [entry for entry in self._heap if entry[3].ticket == entry[2]]
            heapq.heapify(self._heap)

    def drop(self, node: TreeNode) -> None:
        """Take a node out, if it is in."""
        if node.ticket:
            node.ticket = 0
            self._count -= 1

    def first(self) -> TreeNode:
        """The leaf to go next; there must be one."""
        while True:
            _, _, ticket, node = self._heap[0]
            if node.ticket == ticket:
                return node
            heapq.heappop(self._heap)

    def check_integrity(self, leaves: set[TreeNode]) -> None:
        """Raise `AssertionError` unless it holds exactly `leaves`, each by its worth now."""
        valid = [entry for entry in self._heap if entry[3].ticket == entry[2]]
        assert len(valid) == self._count, "the eviction order has lost count"
        assert {node for *_, node in valid} == leaves, "the eviction order is not the leaves"
        for worth, last_used, _, node in valid:
            assert (worth, last_used) == (_worth(node), node.last_used), "a leaf's worth is stale"


def _worth(node: TreeNode) -> float:
    return -math.inf if node.pins is None else -min(node.pins.values())
