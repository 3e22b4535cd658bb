"""The order in which leaves of the KV tree are evicted."""

from __future__ import annotations

import heapq
import itertools
import math

from plato.engine.torch.node import TreeNode


class EvictionOrder:
    """The unlocked leaves in eviction order.

    Unpinned before pinned; among pinned, the greatest distance first; among equals, the least
    recently used. A heap whose entries are void once their node has a newer ticket, so a change
    takes time logarithmic in the number of leaves.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, TreeNode]] = []
        self._tickets = itertools.count(1)
        self._count = 0

    def put(self, node: TreeNode) -> None:
        """Add a leaf, or reorder it after a change of its pins or use."""
        if not node.ticket:
            self._count += 1
        node.ticket = next(self._tickets)
        heapq.heappush(self._heap, (_priority(node), node.last_used, node.ticket, node))
        if len(self._heap) > 2 * self._count + 64:
            self._heap = [entry for entry in self._heap if entry[3].ticket == entry[2]]
            heapq.heapify(self._heap)

    def drop(self, node: TreeNode) -> None:
        """Remove a node, if present."""
        if node.ticket:
            node.ticket = 0
            self._count -= 1

    def first(self) -> TreeNode:
        """The leaf to evict next; there must be one."""
        while True:
            _, _, ticket, node = self._heap[0]
            if node.ticket == ticket:
                return node
            heapq.heappop(self._heap)

    def check_integrity(self, leaves: set[TreeNode]) -> None:
        """Raise `AssertionError` unless it holds exactly `leaves`, by current priority."""
        valid = [entry for entry in self._heap if entry[3].ticket == entry[2]]
        assert len(valid) == self._count, "the eviction order's count is wrong"
        assert {node for *_, node in valid} == leaves, "the eviction order differs from the leaves"
        for priority, last_used, _, node in valid:
            assert (priority, last_used) == (_priority(node), node.last_used), (
                "a leaf's priority is stale"
            )


def _priority(node: TreeNode) -> float:
    return -math.inf if node.pins is None else -min(node.pins.values())
