"""Pins: KV that live runs will need again is evicted last."""

from __future__ import annotations

from collections.abc import Callable

from plato.engine.torch.node import TreeNode

PIN_TTL_S = 120.0
"""A pin expires after this, in case its scheduler died before releasing it."""
MAX_PINS = 4096
"""Limit of pins; the oldest is dropped for a new one."""


class Pins:
    """Which run will need which node, and how soon.

    A pin is a priority against eviction, never a lock: pinned nodes are evicted when nothing else
    is left, the greatest distance first. A pin covers the whole path to its node, because parents
    are evicted after their children; when the node is evicted, its pins pass to its parent.

    Methods that change pins return the nodes whose eviction order has changed.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Both bounded by MAX_PINS.
        self._deadlines: dict[tuple[str, TreeNode], float] = {}
        self._by_run: dict[str, set[TreeNode]] = {}
        self._next_check = 0.0

    def __len__(self) -> int:
        return len(self._deadlines)

    def add(self, node: TreeNode, run_id: str, distance: int) -> list[TreeNode]:
        """Pin `node` for `run`, replacing an earlier pin of the run on it.

        `distance` is the number of the run's nodes that must finish before it is needed.
        """
        return self._add(node, run_id, distance, self._clock() + PIN_TTL_S)

    def release(self, run_id: str) -> list[TreeNode]:
        """Drop all pins of a run."""
        nodes = list(self._by_run.get(run_id, ()))
        for node in nodes:
            self._remove(node, run_id)
        return nodes

    def expire(self) -> list[TreeNode]:
        """Drop expired pins; checks at most once a second."""
        now = self._clock()
        if now < self._next_check:
            return []
        self._next_check = now + 1.0
        expired = [key for key, deadline in self._deadlines.items() if deadline <= now]
        for run, node in expired:
            self._remove(node, run)
        return [node for _, node in expired]

    def pass_on(self, node: TreeNode) -> None:
        """Pass the pins of `node`, which is being evicted, to its parent."""
        parent = node.parent
        assert parent is not None
        for run, distance in dict(node.pins or {}).items():
            deadline = self._remove(node, run)
            if parent.parent is None:
                continue
            if parent.pins is not None and run in parent.pins:
                distance = min(distance, parent.pins[run])
                deadline = max(deadline, self._deadlines[run, parent])
            self._add(parent, run, distance, deadline)

    def check_integrity(self, nodes: set[TreeNode]) -> None:
        """Raise `AssertionError` unless the pins are those of `nodes`, all nodes of the tree."""
        held = {(run, node) for node in nodes for run in node.pins or ()}
        assert held == self._deadlines.keys(), "pins differ from those of the tree's nodes"
        by_run = {(run, node) for run, of_run in self._by_run.items() for node in of_run}
        assert held == by_run, "pins by run differ from those of the tree's nodes"
        assert all(self._by_run.values()), "an entry of a run without pins"
        assert all(node.pins is None or node.pins for node in nodes), "an empty set of pins"
        assert len(self._deadlines) <= MAX_PINS, "too many pins"

    def _add(self, node: TreeNode, run_id: str, distance: int, deadline: float) -> list[TreeNode]:
        changed = [node]
        if (run_id, node) in self._deadlines:
            self._remove(node, run_id)
        elif len(self._deadlines) >= MAX_PINS:
            oldest_run, oldest = next(iter(self._deadlines))
            self._remove(oldest, oldest_run)
            changed.append(oldest)
        self._deadlines[run_id, node] = deadline
        self._by_run.setdefault(run_id, set()).add(node)
        if node.pins is None:
            node.pins = {}
        node.pins[run_id] = distance
        return changed

    def _remove(self, node: TreeNode, run_id: str) -> float:
        assert node.pins is not None
        del node.pins[run_id]
        if not node.pins:
            node.pins = None
        of_run = self._by_run[run_id]
        of_run.remove(node)
        if not of_run:
            del self._by_run[run_id]
        return self._deadlines.pop((run_id, node))
