"""One tree for the KV of all prompts and outputs: what is shared is held and computed once.

A radix tree over token ids, as in SGLang's RadixAttention (arXiv 2312.07104, section 3), with two
differences. An edge also has a *scope*: public, or one tenant's, so a private prefix is never
found by another tenant. And nodes enter the tree *before* they are computed: the first sequence
that needs a node claims it, others with the same prefix wait for it instead of computing it too.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from plato.engine.prompt import Prompt
from plato.engine.torch.pool import KVPool

if TYPE_CHECKING:
    from numpy.typing import NDArray

PUBLIC = ""


def scope_runs(prompt: Prompt, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Split positions [start, end) of a prompt and its output by scope: (scope, from, to)."""
    boundary = min(max(prompt.public_tokens, start), end)
    if start < boundary:
        yield PUBLIC, start, boundary
    if boundary < end:
        # The colon keeps a tenant with an empty name apart from the public scope.
        yield f"tenant:{prompt.tenant}", boundary, end


class TreeNode:
    """A run of tokens on the way from the root; its KV lies in `slots`."""

    __slots__ = (
        "children",
        "claimed_by",
        "computed",
        "last_used",
        "locks",
        "parent",
        "scope",
        "slots",
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
        self.last_used = 0

    @property
    def complete(self) -> bool:
        """Whether all of its KV is there."""
        return self.computed == len(self.tokens)

    def path(self) -> list[TreeNode]:
        """The nodes from below the root down to this one."""
        nodes: list[TreeNode] = []
        node: TreeNode | None = self
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        return nodes


class KVTree:
    """The tree, its locks, and eviction of what nobody needs.

    Bounded by the pool: every token in it holds one slot.
    """

    def __init__(self, pool: KVPool) -> None:
        self._pool = pool
        self._clock = itertools.count(1)
        self.root = TreeNode(None, PUBLIC, (), np.empty(0, np.int64))

    def cached_prefix(self, prompt: Prompt) -> int:
        """Leading tokens of `prompt` whose KV is there. Changes nothing."""
        found = 0
        node = self.root
        tokens = prompt.tokens
        for scope, start, end in scope_runs(prompt, 0, len(tokens)):
            while start < end:
                child = node.children.get((scope, tokens[start]))
                if child is None:
                    return found
                shared = min(_common(child.tokens, tokens, start, end), child.computed)
                found += shared
                start += shared
                if shared < len(child.tokens):
                    return found
                node = child
        return found

    def lock(self, prompt: Prompt, tokens: tuple[int, ...]) -> tuple[TreeNode, int]:
        """Find the longest prefix of `tokens` in the tree and lock it.

        `tokens` is the prompt with what was emitted before. Returns the node where the prefix
        ends (the root if nothing was found) and its length; the prefix may not be computed yet.
        """
        node, found = self.root, 0
        for scope, start, end in scope_runs(prompt, 0, len(tokens)):
            while start < end:
                child = node.children.get((scope, tokens[start]))
                if child is None:
                    return self._lock_path(node), found
                shared = _common(child.tokens, tokens, start, end)
                if shared < len(child.tokens):
                    child = self._split(child, shared)
                node = child
                found += shared
                start += shared
        return self._lock_path(node), found

    def grow(
        self,
        node: TreeNode,
        prompt: Prompt,
        tokens: tuple[int, ...],
        start: int,
        slots: NDArray[np.int64],
    ) -> TreeNode:
        """Hang `tokens[start:]`, not computed yet, below `node`, locked once; returns the end."""
        used = 0
        for scope, begin, end in scope_runs(prompt, start, len(tokens)):
            count = end - begin
            node = self._add(node, scope, tokens[begin:end], slots[used : used + count])
            node.locks = 1
            used += count
        return node

    def keep(
        self,
        node: TreeNode,
        prompt: Prompt,
        tokens: tuple[int, ...],
        start: int,
        slots: NDArray[np.int64],
    ) -> None:
        """Hang the computed `tokens[start:]` below `node`; slots of what is there already go free.

        `slots[i]` holds the KV of `tokens[start + i]`.
        """
        offset = start
        for scope, begin, end in scope_runs(prompt, start, len(tokens)):
            while begin < end:
                child = node.children.get((scope, tokens[begin]))
                if child is None:
                    child = self._add(
                        node, scope, tokens[begin:end], slots[begin - offset : end - offset]
                    )
                    child.computed = end - begin
                    node, begin = child, end
                    continue
                shared = _common(child.tokens, tokens, begin, end)
                if shared < len(child.tokens):
                    child = self._split(child, shared)
                if not child.complete:
                    # Somebody is computing the same tokens right now; what follows would hang
                    # below an incomplete node.
                    self._pool.free(slots[begin - offset :])
                    return
                self._pool.free(slots[begin - offset : begin - offset + shared])
                node.last_used = child.last_used = next(self._clock)
                node, begin = child, begin + shared

    def unlock(self, node: TreeNode, owner: object) -> None:
        """Release a locked path that ends at `node`, and the claims of `owner` on it.

        Tokens that nobody computed and nobody needs any more leave the tree.
        """
        for step in reversed(node.path()):
            step.locks -= 1
            step.last_used = next(self._clock)
            if step.claimed_by is owner:
                step.claimed_by = None
            if step.locks == 0 and not step.complete:
                self._trim(step)

    def ensure_free(self, count: int) -> bool:
        """Evict until `count` slots are free, least recently used leaves first.

        Returns False, with nothing evicted, if that is not possible.
        """
        if self._pool.free_count + self.evictable() < count:
            return False
        leaves = [
            (node.last_used, id(node), node)
            for node in self.nodes()
            if not node.children and not node.locks
        ]
        heapq.heapify(leaves)
        while self._pool.free_count < count:
            _, _, node = heapq.heappop(leaves)
            parent = node.parent
            self._remove(node)
            if parent is not None and parent.parent and not parent.children and not parent.locks:
                heapq.heappush(leaves, (parent.last_used, id(parent), parent))
        return True

    def evictable(self) -> int:
        """Tokens that no live sequence needs."""
        return sum(len(node.tokens) for node in self.nodes() if not node.locks)

    def pending(self) -> int:
        """Tokens that live sequences need and nobody has computed yet."""
        return sum(len(node.tokens) - node.computed for node in self.nodes())

    def nodes(self) -> Iterator[TreeNode]:
        """All nodes but the root."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def _lock_path(self, node: TreeNode) -> TreeNode:
        for step in node.path():
            step.locks += 1
            step.last_used = next(self._clock)
        return node

    def _add(
        self, parent: TreeNode, scope: str, tokens: tuple[int, ...], slots: NDArray[np.int64]
    ) -> TreeNode:
        node = TreeNode(parent, scope, tokens, slots)
        node.last_used = next(self._clock)
        parent.children[scope, tokens[0]] = node
        return node

    def _split(self, node: TreeNode, at: int) -> TreeNode:
        """Cut `node` before its token `at`; returns the new upper part.

        The lower part keeps its identity, so that sequences that end at it stay right.
        """
        parent = node.parent
        assert parent is not None
        upper = TreeNode(parent, node.scope, node.tokens[:at], node.slots[:at])
        upper.computed = min(node.computed, at)
        upper.locks = node.locks
        upper.last_used = node.last_used
        upper.claimed_by = None if upper.complete else node.claimed_by
        upper.children[node.scope, node.tokens[at]] = node
        parent.children[node.scope, node.tokens[0]] = upper
        node.parent = upper
        node.tokens = node.tokens[at:]
        node.slots = node.slots[at:]
        node.computed = max(0, node.computed - at)
        return upper

    def _trim(self, node: TreeNode) -> None:
        """Drop the part of `node` that is not computed."""
        assert not node.children
        if node.computed == 0:
            self._remove(node)
            return
        self._pool.free(node.slots[node.computed :])
        node.tokens = node.tokens[: node.computed]
        node.slots = node.slots[: node.computed]

    def _remove(self, node: TreeNode) -> None:
        assert node.parent is not None
        assert not node.children
        self._pool.free(node.slots)
        del node.parent.children[node.scope, node.tokens[0]]


def _common(left: tuple[int, ...], right: tuple[int, ...], start: int, end: int) -> int:
    """Length of the common prefix of `left` and `right[start:end]`."""
    limit = min(len(left), end - start)
    if left[:limit] == right[start : start + limit]:
        return limit
    return next(i for i in range(limit) if left[i] != right[start + i])
