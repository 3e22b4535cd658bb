"""One node of the KV tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TreeNode:
    """Consecutive tokens of a path; their KV is in `slots`."""

    __slots__ = (
        "children",
        "claimed_by",
        "computed",
        "last_used",
        "locks",
        "marks",
        "parent",
        "pins",
        "scope",
        "slots",
        "ticket",
        "tokens",
    )

    def __init__(
        self,
        parent: TreeNode | None,
        scope: str,
        tokens: tuple[int, ...],
        slots: NDArray[np.int64],
    ) -> None:
        self.parent = parent
        self.scope = scope
        self.tokens = tokens
        self.slots = slots
        self.computed = 0
        """Leading tokens whose KV is computed; a child has none before its parent has all."""
        self.children: dict[tuple[str, int], TreeNode] = {}
        self.locks = 0
        """Live sequences whose path includes this node; never fewer than those of a child."""
        self.claimed_by: object | None = None
        """The sequence that computes the missing tokens."""
        self.marks: dict[int, bytes] | None = None
        """Hashes of named prefixes that end in this node, by their length within it (see
        `MarkedPrefixes`)."""
        self.pins: dict[str, int] | None = None
        """Distance for every run that has pinned this node (see `Pins`); `None`: not pinned."""
        self.last_used = 0
        self.ticket = 0
        """Its valid entry in the `EvictionOrder`; 0: none."""

    @property
    def complete(self) -> bool:
        """Whether all of its KV is computed."""
        return self.computed == len(self.tokens)

    @property
    def missing(self) -> int:
        """Number of tokens whose KV is not computed yet."""
        return len(self.tokens) - self.computed

    @property
    def evictable(self) -> bool:
        """Whether it is an unlocked leaf."""
        return not self.locks and not self.children and self.parent is not None

    def path(self) -> list[TreeNode]:
        """The nodes from the root's child down to this one."""
        nodes: list[TreeNode] = []
        node: TreeNode | None = self
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        return nodes
