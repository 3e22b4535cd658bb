"""One node of the KV tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TreeNode:
    """A run of tokens on the way from the root; its KV lies in `slots`."""

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
        """Leading tokens whose KV is there; a child has some only when its parent has all."""
        self.children: dict[tuple[str, int], TreeNode] = {}
        self.locks = 0
        """Live sequences that need this node; never fewer than those of any child."""
        self.claimed_by: object | None = None
        """The sequence that computes the rest."""
        self.marks: dict[int, bytes] | None = None
        """Names of prefixes that end here, by their length within this node (see `Holdings`)."""
        self.pins: dict[str, int] | None = None
        """Distance of every run that will need this node (see `Pins`); `None` for no run."""
        self.last_used = 0
        self.ticket = 0
        """Its valid entry in the `EvictionOrder`; 0 for none."""

    @property
    def complete(self) -> bool:
        """Whether all of its KV is there."""
        return self.computed == len(self.tokens)

    @property
    def missing(self) -> int:
        """Tokens whose KV is not there yet."""
        return len(self.tokens) - self.computed

    @property
    def evictable(self) -> bool:
        """Whether it can leave the tree as it is: nobody needs it or anything behind it."""
        return not self.locks and not self.children and self.parent is not None

    def path(self) -> list[TreeNode]:
        """The nodes from below the root down to this one."""
        nodes: list[TreeNode] = []
        node: TreeNode | None = self
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        return nodes
