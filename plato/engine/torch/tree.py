"""One tree for the KV of all prompts and outputs: a shared prefix is stored and computed once.

A radix tree over token ids, as in SGLang's RadixAttention (arXiv 2312.07104, section 3), with two
differences. An edge also has a *scope*: of one model, and public or one tenant's, so no tenant
finds a private prefix of another. And nodes enter the tree *before* they are computed: the first
sequence that needs a node claims it, and others with the same prefix wait for it instead of
computing it too.

With one slot per token, a fork at any token only splits a node: no KV is copied, and what a
sequence writes after the fork goes into its own slots.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from plato.engine.kv_events import named_ends
from plato.engine.prompt import Prompt
from plato.engine.torch.eviction import EvictionOrder
from plato.engine.torch.kv_events import MarkedPrefixes
from plato.engine.torch.node import TreeNode
from plato.engine.torch.pins import Pins
from plato.engine.torch.pool import KVPool
from plato.engine.torch.scopes import ROOT, scope_runs

if TYPE_CHECKING:
    from numpy.typing import NDArray


class KVTree:
    """The tree, its locks, and eviction of what no live sequence needs.

    Bounded by the pool: every token takes one slot. A *path* is a node and its ancestors; a live
    sequence locks the path that it reads.
    """

    def __init__(self, pool: KVPool, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._uses = itertools.count(1)
        self._order = EvictionOrder()
        self._pins = Pins(clock)
        self.kv_events = MarkedPrefixes()
        self.root = TreeNode(None, ROOT, (), np.empty(0, np.int64))
        # Updated with every change, because every step reads them.
        self.evictable = 0
        """Tokens that no live sequence needs."""
        self.pending = 0
        """Tokens that live sequences need and that are not computed yet."""
        self.evicted = 0
        """Tokens evicted so far."""

    def find(self, prompt: Prompt, tokens: tuple[int, ...]) -> tuple[TreeNode | None, int, int]:
        """Find the longest prefix of `tokens`, the prompt with what follows it.

        Changes nothing. Returns the node at whose end the prefix ends, its length, and how many of
        its leading tokens are computed. The node is `None` if the prefix ends within a node.
        """
        node: TreeNode | None = self.root
        found = computed = 0
        for child, shared in self._walk(prompt, tokens):
            if computed == found:
                computed += min(shared, child.computed)
            found += shared
            node = child if shared == len(child.tokens) else None
        return node, found, computed

    def lock(self, prompt: Prompt, tokens: tuple[int, ...]) -> tuple[TreeNode, int]:
        """Find the longest prefix of `tokens` in the tree and lock its path.

        `tokens` is the prompt with what follows it. Returns the node where the prefix ends (the
        root if nothing was found) and its length; the prefix may not be computed yet.
        """
        node, found = self._end_of(prompt, tokens)
        for step in node.path():
            self._lock(step)
        return node, found

    def grow(
        self,
        node: TreeNode,
        prompt: Prompt,
        tokens: tuple[int, ...],
        start: int,
        slots: NDArray[np.int64],
    ) -> TreeNode:
        """Add `tokens[start:]`, not computed yet, below `node`, locked once; returns the end."""
        self.pending += len(tokens) - start
        for scope, begin, end in scope_runs(prompt, start, len(tokens)):
            node = self._add(node, scope, tokens[begin:end], slots[begin - start : end - start])
        return node

    def advance(self, node: TreeNode, end: int) -> None:
        """Note that the KV of the path to `node` is computed up to position `end`."""
        position = 0
        for step in node.path():
            if not step.complete:
                computed = min(len(step.tokens), max(step.computed, end - position))
                self.pending -= computed - step.computed
                step.computed = computed
                if step.complete:
                    step.claimed_by = None
            position += len(step.tokens)
            if position >= end:
                return

    def commit(
        self,
        node: TreeNode,
        prompt: Prompt,
        tokens: Sequence[int],
        start: int,
        slots: NDArray[np.int64],
    ) -> tuple[TreeNode, int]:
        """Extend a locked path by `tokens`, which a sequence has computed in its own slots.

        `tokens` are at the positions from `start`, their KV in `slots`; `node` is the end of the
        path. A leaf that only this sequence uses is extended in place. Tokens that the tree holds
        already are not stored twice: their entries of `slots` are freed and overwritten with the
        tree's. Returns the new end of the path and its position, which falls short where another
        sequence is computing the same tokens.
        """
        new = tuple(tokens)
        for scope, begin, end in scope_runs(prompt, start, start + len(new)):
            at, stop = begin - start, end - start
            while at < stop:
                child = node.children.get((scope, new[at]))
                if child is None:
                    node = self._append(node, scope, new[at:stop], slots[at:stop].copy())
                    at = stop
                    continue
                shared = min(_common(child.tokens, new, at, stop), child.computed)
                if shared == 0:
                    return node, start + at
                if shared < len(child.tokens):
                    child = self._split(child, shared)
                self._pool.free(slots[at : at + shared])
                slots[at : at + shared] = child.slots
                self._lock(child)
                node, at = child, at + shared
        return node, start + len(new)

    def unlock(self, node: TreeNode, owner: object) -> None:
        """Release a locked path that ends at `node`, and the claims of `owner` on it.

        Tokens that are neither computed nor needed any more leave the tree.
        """
        for step in reversed(node.path()):
            step.locks -= 1
            step.last_used = next(self._uses)
            if step.claimed_by is owner:
                step.claimed_by = None
            if step.locks:
                continue
            if step.missing:
                assert not step.children
                self.pending -= step.missing
                self._cut(step, step.missing)
            # A node that was cut away entirely has left the tree.
            if step.tokens:
                self.evictable += len(step.tokens)
                if step.evictable:
                    self._order.put(step)

    def ensure_free(self, count: int) -> bool:
        """Evict until `count` slots are free, and no more.

        Evicts unlocked leaves in the order of `EvictionOrder`, from their ends. Returns False,
        with nothing evicted, if that is not possible.
        """
        if self._pool.free_count + self.evictable < count:
            return False
        while (missing := count - self._pool.free_count) > 0:
            leaf = self._order.first()
            missing = min(missing, len(leaf.tokens))
            self.evictable -= missing
            self.evicted += missing
            self._cut(leaf, missing)
        return True

    def pin(self, prompt: Prompt, run_id: str, distance: int) -> None:
        """Pin the cached part of `prompt`."""
        node, _ = self._end_of(prompt, prompt.tokens)
        self.pin_path(node, run_id, distance)

    def pin_path(self, node: TreeNode, run_id: str, distance: int) -> None:
        """Pin the path that ends at `node`; see `Pins`."""
        if node is not self.root:
            self._reorder(self._pins.add(node, run_id, distance))

    def release(self, run_id: str) -> None:
        """Drop all pins of a run."""
        self._reorder(self._pins.release(run_id))

    def expire_pins(self) -> None:
        """Drop the expired pins."""
        self._reorder(self._pins.expire())

    def slots_of(self, prompt: Prompt, start: int) -> NDArray[np.int64]:
        """Slots of the computed part of `prompt`, from position `start` on; may be empty."""
        _, _, computed = self.find(prompt, prompt.tokens)
        parts = [node.slots[:shared] for node, shared in self._walk(prompt, prompt.tokens)]
        slots = np.concatenate([np.empty(0, np.int64), *parts])[start:computed]
        return slots.astype(np.int64)

    def adopt(
        self,
        prompt: Prompt,
        start: int,
        stop: int,
        write: Callable[[NDArray[np.int64]], None],
    ) -> int:
        """Store KV of `prompt` from `start` to `stop` that another engine computed.

        `write` fills the slots that it is given: those of the tokens that are not cached yet, the
        last ones. Only then do they count as computed. Returns their number; 0, with nothing
        changed, if that is not possible.
        """
        tokens = prompt.tokens[:stop]
        node, found, computed = self.find(prompt, tokens)
        if computed < found or not start <= found < stop:
            return 0
        node, found = self.lock(prompt, tokens)
        stored = 0
        try:
            if self.ensure_free(stop - found):
                slots = self._pool.allocate(stop - found)
                try:
                    write(slots)
                except BaseException:
                    self._pool.free(slots)
                    raise
                node = self.grow(node, prompt, tokens, found, slots)
                self.advance(node, stop)
                stored = len(slots)
        finally:
            self.unlock(node, None)
        self.mark(prompt)
        return stored

    def mark(self, prompt: Prompt) -> None:
        """Publish the named prefixes of the cached part of `prompt` as KV events."""
        _, found, computed = self.find(prompt, prompt.tokens)
        ends = iter(named_ends(prompt, min(found, computed)))
        position = 0
        chain, length = next(ends, (b"", 0))
        for node, shared in self._walk(prompt, prompt.tokens):
            while length and length <= position + shared:
                self.kv_events.mark(node, length - position, chain, length)
                chain, length = next(ends, (b"", 0))
            position += shared

    def nodes(self) -> Iterator[TreeNode]:
        """All nodes but the root."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless counters, eviction order and pins match the nodes."""
        nodes = set(self.nodes())
        unneeded = sum(len(node.tokens) for node in nodes if not node.locks)
        assert self.evictable == unneeded, "the count of evictable tokens is wrong"
        assert self.pending == sum(n.missing for n in nodes), "the count of pending tokens is wrong"
        self._order.check_integrity({node for node in nodes if node.evictable})
        self._pins.check_integrity(nodes)
        self.kv_events.check_integrity(nodes)
        for node in nodes:
            assert node.tokens, "an empty node"
            assert len(node.tokens) == len(node.slots), "a node has more or fewer slots than tokens"
            assert node.complete or node.locks, "an incomplete node without locks"
            for (scope, token), child in node.children.items():
                assert child.parent is node, "a child has another parent"
                assert (scope, token) == (child.scope, child.tokens[0]), "a child is misplaced"
                assert child.computed == 0 or node.complete, "a child is computed before its parent"
                assert child.locks <= node.locks, "a child has more locks than its parent"

    def _walk(self, prompt: Prompt, tokens: tuple[int, ...]) -> Iterator[tuple[TreeNode, int]]:
        """The nodes along `tokens`, each with the number of its tokens that match.

        All but the last match completely.
        """
        node = self.root
        for scope, start, end in scope_runs(prompt, 0, len(tokens)):
            while start < end:
                child = node.children.get((scope, tokens[start]))
                if child is None:
                    return
                shared = _common(child.tokens, tokens, start, end)
                # Before the yield, because the consumer may split the node.
                whole = shared == len(child.tokens)
                yield child, shared
                if not whole:
                    return
                node = child
                start += shared

    def _end_of(self, prompt: Prompt, tokens: tuple[int, ...]) -> tuple[TreeNode, int]:
        """Node and length of the longest prefix of `tokens`; splits the node to end there."""
        node, found = self.root, 0
        for child, shared in self._walk(prompt, tokens):
            node = child if shared == len(child.tokens) else self._split(child, shared)
            found += shared
        return node, found

    def _lock(self, node: TreeNode) -> None:
        if not node.locks:
            self.evictable -= len(node.tokens)
            self._order.drop(node)
        node.locks += 1
        node.last_used = next(self._uses)

    def _add(
        self, parent: TreeNode, scope: str, tokens: tuple[int, ...], slots: NDArray[np.int64]
    ) -> TreeNode:
        """Add a child, locked once, to a locked node."""
        node = TreeNode(parent, scope, tokens, slots)
        node.locks = 1
        node.last_used = next(self._uses)
        parent.children[scope, tokens[0]] = node
        return node

    def _append(
        self, node: TreeNode, scope: str, tokens: tuple[int, ...], slots: NDArray[np.int64]
    ) -> TreeNode:
        """Add computed tokens after `node`, in place if no other sequence or node depends on it."""
        if node.locks == 1 and not node.children and node.scope == scope:
            node.tokens += tokens
            node.slots = np.concatenate([node.slots, slots])
        else:
            node = self._add(node, scope, tokens, slots)
        node.computed = len(node.tokens)
        return node

    def _split(self, node: TreeNode, at: int) -> TreeNode:
        """Split `node` before its token `at`; returns the new upper node.

        The lower node stays the same object, so that sequences whose leaf it is stay valid. Slots
        are copied, because views would keep the whole array alive.
        """
        parent = node.parent
        assert parent is not None
        upper = TreeNode(parent, node.scope, node.tokens[:at], node.slots[:at].copy())
        upper.computed = min(node.computed, at)
        upper.locks = node.locks
        upper.last_used = node.last_used
        upper.claimed_by = None if upper.complete else node.claimed_by
        self.kv_events.split(upper, node, at)
        upper.children[node.scope, node.tokens[at]] = node
        parent.children[node.scope, node.tokens[0]] = upper
        node.parent = upper
        node.tokens = node.tokens[at:]
        node.slots = node.slots[at:].copy()
        node.computed = max(0, node.computed - at)
        return upper

    def _cut(self, node: TreeNode, count: int) -> None:
        """Free the last `count` tokens of a leaf, and remove it if no tokens are left."""
        keep = len(node.tokens) - count
        self.kv_events.truncate(node, keep)
        self._pool.free(node.slots[keep:])
        if keep == 0:
            self._remove(node)
        node.tokens, node.slots = node.tokens[:keep], node.slots[:keep].copy()
        node.computed = min(node.computed, keep)

    def _remove(self, node: TreeNode) -> None:
        """Remove a leaf whose slots are free."""
        parent = node.parent
        assert parent is not None
        self._order.drop(node)
        self._pins.pass_on(node)
        del parent.children[node.scope, node.tokens[0]]
        if parent.evictable:
            self._order.put(parent)

    def _reorder(self, nodes: list[TreeNode]) -> None:
        for node in nodes:
            if node.evictable:
                self._order.put(node)


def _common(left: tuple[int, ...], right: tuple[int, ...], start: int, end: int) -> int:
    """Length of the common prefix of `left` and `right[start:end]`."""
    limit = min(len(left), end - start)
    if left[:limit] == right[start : start + limit]:
        return limit
    return next(i for i in range(limit) if left[i] != right[start + i])
