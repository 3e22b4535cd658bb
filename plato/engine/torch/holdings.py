"""Which named prefixes an engine holds, told to others as they come and go.

A prefix has the chained hash of its last segment as its name. A mark in the KV tree stands where a
named prefix ends, so that it goes when a token before it is evicted; here is what has changed
since it was last asked for.
"""

from __future__ import annotations

from collections.abc import Iterable

from plato.engine.prompt import Prompt
from plato.engine.protocol import HeldPrefix, HoldingsChange
from plato.engine.torch.node import TreeNode


class Holdings:
    """The named prefixes in a KV tree. Bounded by it: each name stands at a token of its own."""

    def __init__(self) -> None:
        self._held: dict[bytes, int] = {}
        """Length of each prefix, in tokens."""
        self._changed: dict[bytes, int] = {}
        """Since the last change was taken: the length, or 0 for what is gone. What came and went
        meanwhile is in it once."""
        self._sequence = 0

    def hold(self, node: TreeNode, at: int, chain: bytes, tokens: int) -> None:
        """Note that a prefix of `tokens` tokens ends behind the first `at` tokens of `node`."""
        if node.marks is None:
            node.marks = {}
        known = node.marks.get(at)
        if known == chain:
            return
        if known is not None or chain in self._held:
            # Two names of one place, or one name at two: the first stays.
            return
        node.marks[at] = chain
        self._held[chain] = self._changed[chain] = tokens

    def split(self, upper: TreeNode, lower: TreeNode, at: int) -> None:
        """A node has been cut in two before its token `at`; `lower` has the marks of both."""
        marks, lower.marks = lower.marks, None
        for place, chain in (marks or {}).items():
            part, new = (upper, place) if place <= at else (lower, place - at)
            if part.marks is None:
                part.marks = {}
            part.marks[new] = chain

    def cut(self, node: TreeNode, keep: int) -> None:
        """All but the first `keep` tokens of a node are gone."""
        if not node.marks:
            return
        for place in [place for place in node.marks if place > keep]:
            chain = node.marks.pop(place)
            del self._held[chain]
            self._changed[chain] = 0

    def changes(self) -> HoldingsChange | None:
        """What has changed since the last call; `None` if nothing has."""
        if not self._changed:
            return None
        changed, self._changed = self._changed, {}
        self._sequence += 1
        return HoldingsChange(
            self._sequence,
            held=tuple(HeldPrefix(chain, tokens) for chain, tokens in changed.items() if tokens),
            evicted=tuple(chain for chain, tokens in changed.items() if not tokens),
        )

    def snapshot(self) -> HoldingsChange:
        """Everything, as of the last change that was taken and what has changed since."""
        held = tuple(HeldPrefix(chain, tokens) for chain, tokens in self._held.items())
        return HoldingsChange(self._sequence, held=held, whole=True)

    def check_integrity(self, nodes: Iterable[TreeNode]) -> None:
        """Raise `AssertionError` unless the marks are what is held."""
        marks = [
            (chain, place, node) for node in nodes for place, chain in (node.marks or {}).items()
        ]
        assert len(marks) == len(self._held), "a mark is lost, or stands twice"
        assert {chain for chain, _, _ in marks} == self._held.keys(), "marks are not what is held"
        for _, place, node in marks:
            assert 0 < place <= node.computed, "a mark behind what is computed"


def named_ends(prompt: Prompt, computed: int) -> list[tuple[bytes, int]]:
    """(name, length) of the prefixes of `prompt` whose first `computed` tokens are there.

    The last token that a sequence has sampled has no KV: a prefix that only that is missing of
    counts as one token shorter.
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
