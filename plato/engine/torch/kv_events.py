"""KV events: which named prefixes a KV tree holds, and what has changed since the last batch.

A prefix is named by the chained hash of its last segment. A mark in the KV tree stands where a
named prefix ends, so that evicting any of its tokens also removes the mark.
"""

from __future__ import annotations

from collections.abc import Iterable

from plato.engine.prompt import Prompt
from plato.engine.protocol import KVEventBatch, StoredPrefix
from plato.engine.torch.node import TreeNode


class KVEventLog:
    """The named prefixes in a KV tree. Bounded by it: each name marks a token of its own."""

    def __init__(self) -> None:
        self._stored: dict[bytes, int] = {}
        """Length of each prefix, in tokens."""
        self._changed: dict[bytes, int] = {}
        """Since the last batch: the length, or 0 for a removed prefix. Only the last change of a
        prefix is kept."""
        self._number = 0

    def store(self, node: TreeNode, at: int, chain: bytes, tokens: int) -> None:
        """Note that a prefix of `tokens` tokens ends after the first `at` tokens of `node`."""
        if node.marks is None:
            node.marks = {}
        known = node.marks.get(at)
        if known == chain:
            return
        if known is not None or chain in self._stored:
            # Two names for one place, or one name for two places: the first one stays.
            return
        node.marks[at] = chain
        self._stored[chain] = self._changed[chain] = tokens

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
            chain = node.marks.pop(place)
            del self._stored[chain]
            self._changed[chain] = 0

    def take(self) -> KVEventBatch | None:
        """The events since the last call; `None` if there are none."""
        if not self._changed:
            return None
        changed, self._changed = self._changed, {}
        self._number += 1
        return KVEventBatch(
            self._number,
            stored=tuple(
                StoredPrefix(chain, tokens) for chain, tokens in changed.items() if tokens
            ),
            removed=tuple(chain for chain, tokens in changed.items() if not tokens),
        )

    def snapshot(self) -> KVEventBatch:
        """All named prefixes, as of the last batch or later."""
        stored = tuple(StoredPrefix(chain, tokens) for chain, tokens in self._stored.items())
        return KVEventBatch(self._number, stored=stored, snapshot=True)

    def check_integrity(self, nodes: Iterable[TreeNode]) -> None:
        """Raise `AssertionError` unless the marks of `nodes` are the stored prefixes."""
        marks = [
            (chain, place, node) for node in nodes for place, chain in (node.marks or {}).items()
        ]
        assert len(marks) == len(self._stored), "a mark is missing or duplicated"
        assert {chain for chain, _, _ in marks} == self._stored.keys(), (
            "marks differ from the stored prefixes"
        )
        for _, place, node in marks:
            assert 0 < place <= node.computed, "a mark behind the computed tokens"


def named_ends(prompt: Prompt, computed: int) -> list[tuple[bytes, int]]:
    """(chained hash, length) of the prefixes of `prompt` within its first `computed` tokens.

    The last sampled token of a sequence has no KV: a whole prompt that lacks only that counts as
    one token shorter.
    """
    ends: list[tuple[bytes, int]] = []
    length = 0
    for chain, segment in zip(prompt.hashes, prompt.segments, strict=True):
        length += len(segment.tokens)
        if length <= computed:
            ends.append((chain, length))
        elif length == computed + 1 == len(prompt) and computed > 0:
            ends.append((chain, computed))
    return ends
