"""Who waits, who runs, and whose KV is held: admission, growth and preemption."""

from __future__ import annotations

import bisect
import logging

import numpy as np

from plato.engine.prompt import Prompt
from plato.engine.torch.pool import KVPool
from plato.engine.torch.sequence import Sequence
from plato.engine.torch.tree import KVTree

logger = logging.getLogger(__name__)

GROWTH = 16
"""Slots that a decoding sequence reserves at a time, consecutive ones where possible."""
RESUME_ROOM = 64
"""Room to decode that a sequence must find before it is admitted again after a preemption."""


class Residency:
    """Shares the KV budget between sequences, in the order of their claims.

    A sequence holds slots for what it computes now, not for its whole budget. When memory runs
    out, first what no live sequence needs is evicted, then the running sequence with the lowest
    claim is preempted: what it has computed stays in the tree, unlocked, and it goes back to the
    queue, to go on later as if nothing had happened.

    Nothing here can lock up: only running sequences lock memory (pins and the queue lock none),
    the one with the highest claim is never preempted, and alone it fits, or it would have been
    refused. So it always advances.
    """

    def __init__(self, pool: KVPool, tree: KVTree, max_sequences: int) -> None:
        self._pool = pool
        self._tree = tree
        self._max_sequences = max_sequences
        # Both in the order of claims, highest first.
        self.waiting: list[Sequence] = []
        """Bounded by the caller, but for the preempted ones, at most `max_sequences`."""
        self.running: list[Sequence] = []
        self.preemptions = 0

    def enqueue(self, sequence: Sequence) -> None:
        """Let a sequence wait for its admission."""
        known = tuple(sequence.tokens)
        sequence.expected_prefill = len(known) - self.cached(sequence.request.prompt, known)
        bisect.insort(self.waiting, sequence, key=Sequence.order)

    def cached(self, prompt: Prompt, tokens: tuple[int, ...]) -> int:
        """Leading ones of `tokens`, the prompt with what follows it, whose KV is there.

        What live sequences have decoded counts. Changes nothing.
        """
        node, found, computed = self._tree.find(prompt, tokens)
        longest = computed
        if computed == found:
            for live in tuple(self.running):
                if live.leaf is node and live.request.prompt.tenant == prompt.tenant:
                    tail = live.tokens[live.tail_start : live.computed]
                    pairs = zip(tail, tokens[found:], strict=False)
                    same = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
                    longest = max(longest, found + (len(tail) if same is None else same))
        return min(longest, len(tokens))

    def admit(self) -> None:
        """Let waiting sequences run, highest claim first, as far as there is room.

        Nobody overtakes: a sequence that must wait for memory would wait for ever.
        """
        while self.waiting and len(self.running) < self._max_sequences:
            sequence = self.waiting[0]
            if not self._place(sequence):
                return
            self.waiting.pop(0)
            bisect.insort(self.running, sequence, key=Sequence.order)

    def reserve(self, sequence: Sequence, end: int) -> bool:
        """Get slots for a running sequence's positions below `end`.

        Preempts others with lower claims if need be; False if the sequence itself had the lowest
        one and has been preempted.
        """
        missing = end - sequence.reserved
        if missing <= 0:
            return True
        while not self._tree.ensure_free(missing):
            victim = self.running[-1]
            assert victim is not self.running[0], "a sequence does not fit alone"
            self._preempt(victim)
            if victim is sequence:
                return False
        ample = min(max(missing, GROWTH), sequence.slots_needed - sequence.reserved)
        count = ample if self._tree.ensure_free(ample) else missing
        last = int(sequence.slots[sequence.reserved - 1]) if sequence.reserved else None
        new = self._pool.allocate(count, after=last)
        sequence.slots[sequence.reserved : sequence.reserved + count] = new
        sequence.reserved += count
        return True

    def remove(self, sequence: Sequence, keep: int | None = None) -> None:
        """Take a sequence out; what it has computed stays in the tree.

        With `keep`, prompt and output are pinned for its run at that distance.
        """
        if not sequence.running:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        self._commit(sequence)
        if keep is not None:
            assert sequence.leaf is not None
            self._tree.pin_path(sequence.leaf, sequence.request.run, keep)
        self._vacate(sequence)

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless every slot and every lock is accounted for once."""
        self._tree.check_integrity()
        nodes = list(self._tree.nodes())
        held = [slot for node in nodes for slot in node.slots.tolist()]
        paths = {}
        for sequence in self.running:
            assert sequence.leaf is not None, "a running sequence without a place"
            paths[sequence] = path = sequence.leaf.path()
            start = sequence.tail_start
            held.extend(sequence.slots[start : sequence.reserved].tolist())
            tokens = [token for node in path for token in node.tokens]
            assert tokens == sequence.tokens[:start], "a path is not its sequence's tokens"
            slots = [slot for node in path for slot in node.slots.tolist()]
            assert slots == sequence.slots[:start].tolist(), "a path's slots are not its sequence's"
            assert sequence.computed <= sequence.reserved <= sequence.slots_needed
            assert sequence.computed < len(sequence.tokens), "nothing is left to compute"
            if sequence.computed >= start:
                assert all(node.complete for node in path), "a tail behind an incomplete path"
        free = self._pool.free_slots()
        assert len(free) == self._pool.free_count, "a slot is free twice"
        assert len(set(held)) == len(held), "a slot is held twice"
        assert free.isdisjoint(held), "a slot is free and held"
        assert len(held) + len(free) == self._pool.capacity, "a slot is lost"
        for node in nodes:
            live = [sequence for sequence, path in paths.items() if node in path]
            assert node.locks == len(live), "a node's locks are not its live sequences"
            assert node.claimed_by is None or node.claimed_by in live, "a claim of nobody"
        assert len(self.running) <= self._max_sequences, "too many sequences run"
        assert not any(sequence.running for sequence in self.waiting), "a waiting one holds KV"
        for queue in (self.running, self.waiting):
            assert queue == sorted(queue, key=Sequence.order), "a queue is out of order"

    def _place(self, sequence: Sequence) -> bool:
        """Lock what is there of the sequence's tokens, and reserve memory to compute the rest.

        Returns False, with nothing changed, where it would soon be preempted again.
        """
        prompt = sequence.request.prompt
        known = tuple(sequence.tokens[:-1])
        self._commit_forks(prompt, known)
        node, found = self._tree.lock(prompt, known)
        need = len(known) - found
        available = self._pool.free_count + self._tree.evictable
        if self.running and available < need + self._headroom(sequence):
            self._tree.unlock(node, sequence)
            return False
        if not self._tree.ensure_free(need):
            raise AssertionError("a sequence does not fit alone")
        new = self._pool.allocate(need)
        slots = [*(step.slots for step in node.path()), new]
        sequence.leaf = self._tree.grow(node, prompt, known, found, new)
        sequence.slots = np.empty(sequence.slots_needed, np.int64)
        sequence.slots[: len(known)] = np.concatenate(slots)
        sequence.tail_start = sequence.reserved = len(known)
        sequence.computed = 0
        return True

    def _headroom(self, newcomer: Sequence) -> int:
        """Slots that must stay free for everybody to go on decoding for a while."""
        newcomers = RESUME_ROOM if newcomer.preemptions else GROWTH
        tail = newcomer.slots_needed - len(newcomer.tokens) + 1
        return min(newcomers, tail) + sum(
            min(GROWTH, live.slots_needed - live.reserved) for live in self.running
        )

    def _commit_forks(self, prompt: Prompt, tokens: tuple[int, ...]) -> None:
        """Move what live sequences have decoded into the tree, where `tokens` go on with it.

        One slot a token makes this cheap: no KV moves, only nodes change.
        """
        while True:
            node, found, _ = self._tree.find(prompt, tokens)
            if node is None or found == len(tokens):
                return
            for live in self.running:
                if (
                    live.leaf is node
                    and live.computed > live.tail_start
                    and live.tokens[live.tail_start] == tokens[found]
                    and live.request.prompt.tenant == prompt.tenant
                ):
                    self._commit(live)
                    break
            else:
                return

    def _commit(self, sequence: Sequence) -> None:
        """Move the computed tail of a running sequence into the tree."""
        assert sequence.leaf is not None
        start, end = sequence.tail_start, sequence.computed
        if end > start:
            sequence.leaf, sequence.tail_start = self._tree.commit(
                sequence.leaf,
                sequence.request.prompt,
                sequence.tokens[start:end],
                start,
                sequence.slots[start:end],
            )

    def _preempt(self, sequence: Sequence) -> None:
        request = sequence.request
        logger.debug("preempting a node", extra={"run": request.run, "node": request.node})
        self.running.remove(sequence)
        self._commit(sequence)
        sequence.reached = max(sequence.reached, sequence.computed)
        sequence.preemptions += 1
        self.preemptions += 1
        self._vacate(sequence)
        self.enqueue(sequence)

    def _vacate(self, sequence: Sequence) -> None:
        """Give up a sequence's place: only what is in the tree stays, unlocked."""
        assert sequence.leaf is not None
        self._pool.free(sequence.slots[sequence.tail_start : sequence.reserved])
        self._tree.unlock(sequence.leaf, sequence)
        sequence.leaf = None
        sequence.slots = np.empty(0, np.int64)
        sequence.tail_start = sequence.reserved = sequence.computed = 0
