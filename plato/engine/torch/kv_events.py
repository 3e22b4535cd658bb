"""KV events of a KV tree.

A mark in the tree stands where a named prefix ends, so that evicting any of its tokens also
removes the mark.
"""

from __future__ import annotations

from collections.abc import Iterable

from plato.engine.kv_events import KVEventLog
from plato.engine.torch.node import TreeNode


class MarkedPrefixes(KVEventLog):
    """The named prefixes in a KV tree. Bounded by it: each name marks a token of its own."""

    def mark(self, node: TreeNode, at: int, chain: bytes, tokens: int) -> None:
        """Note that a prefix of `tokens` tokens ends after the first `at` tokens of `node`."""
        if node.marks is None:
            node.marks = {}
        known = node.marks.get(at)
        if known == chain:
            return
        if known is not None or chain in self:
            # Two names for one place, or one name for two places: the first one stays.
            return
        node.marks[at] = chain
        self.store(chain, tokens)

    def split(self, upper: TreeNode, lower: TreeNode, at: int) -> None:
        """A node was split before its token `at`; `lower` still has the marks of both halves."""
        marks, lower.marks = lower.marks, None
        for place, chain in (marks or {}).items():
            half, new = (upper, place) if place <= at else (lower, place - at)
            if half.marks is None:
                half.marks = {}
            half.marks[new] = chain

    def truncate(self, node: TreeNode, keep: int) -> None:
        """All but the first `keep` tokens of a node were evicted."""
        if not node.marks:
            return
        for place in [place for place in node.marks if place > keep]:
            self.remove(node.marks.pop(place))

    def check_integrity(self, nodes: Iterable[TreeNode]) -> None:
        """Raise `AssertionError` unless the marks of `nodes` are the stored prefixes."""
        marks = [
            (chain, place, node) for node in nodes for place, chain in (node.marks or {}).items()
        ]
        assert len(marks) == len(self), "a mark is missing or duplicated"
        assert all(chain in self for chain, _, _ in marks), "marks differ from the stored prefixes"
        for _, place, node in marks:
            assert 0 < place <= node.computed, "a mark behind the computed tokens"
