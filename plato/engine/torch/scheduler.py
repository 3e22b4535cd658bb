"""The engine's scheduler: admission, KV allocation, preemption, and what each step computes."""

from __future__ import annotations

import bisect
import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from plato.engine.prompt import Prompt
from plato.engine.torch.attention import Rows
from plato.engine.torch.pool import KVPool
from plato.engine.torch.regulator import BranchRegulator
from plato.engine.torch.sequence import Sequence
from plato.engine.torch.shares import TenantShares
from plato.engine.torch.tree import KVTree

logger = logging.getLogger(__name__)

GROWTH = 16
"""Slots that a decoding sequence reserves at a time, consecutive where possible."""
RESUME_ROOM = 64
"""Free slots for decoding that a preempted sequence needs before it is admitted again."""
PASSED_BY = 4
"""A prompt is passed by shorter ones for at most this many tokens for each of its own."""


@dataclass(frozen=True, slots=True)
class Work:
    """New tokens of one sequence in a step: positions [start, stop)."""

    sequence: Sequence
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def samples(self) -> bool:
        """Whether the step reaches the sequence's end, so that its next token can be sampled."""
        return self.stop == len(self.sequence.tokens)

    @property
    def tokens(self) -> list[int]:
        """The tokens to compute."""
        return self.sequence.tokens[self.start : self.stop]

    @property
    def rows(self) -> Rows:
        """Slots of the sequence up to `stop`; a view, valid until the next step is scheduled."""
        return Rows(self.sequence.slots[: self.stop], len(self), self.sequence.adapted)


class Scheduler:
    """Shares steps and the KV budget between tenants, and among a tenant's sequences by rank.

    Tenants share by the service that they got; a tenant's sequences are ranked by `order`, but the
    first sequence of a run comes before the further ones (*branches*) of all runs. Where the batch
    or the memory is full, a tenant that got less and runs less takes a place of the one that runs
    most, and the first sequence of a run the place of a branch.

    Prompts are computed in the order of `prefill_due`: shorter ones pass longer ones, but not for
    ever. A prompt of several steps leaves most of each step to the decoding sequences of other
    runs.

    A sequence holds slots for what it computes now, not for its whole token budget. When memory
    runs out, KV that no live sequence needs is evicted first; then a running sequence is
    preempted, the last of the tenant that was served most: what it has computed stays in the tree,
    unlocked, and it returns to the queue to resume later.

    There is no deadlock: only running sequences lock memory (pins and the queue lock none), the
    first of all running ones is never preempted for memory, and alone it fits, or it would have
    been refused. So it always advances.
    """

    def __init__(
        self,
        pool: KVPool,
        tree: KVTree,
        *,
        max_sequences: int,
        prefill_chunk: int,
        room_beside: Callable[[int], int | None] = lambda _: None,
        regulator: BranchRegulator | None = None,
    ) -> None:
        """`room_beside`: see `StepTimes.room_beside`. Without `regulator` no branch is delayed."""
        self._regulator = regulator
        self._room_beside = room_beside
        self._shares = TenantShares()
        self._prefilled = 0
        """Prompt tokens computed so far: the clock of `prefill_due`."""
        self._pool = pool
        self._tree = tree
        self._max_sequences = max_sequences
        self._prefill_chunk = prefill_chunk
        # Both by rank, the first of each run before the others.
        self.waiting: list[Sequence] = []
        """Bounded by the caller, except for preempted sequences, at most `max_sequences`."""
        self.running: list[Sequence] = []
        self.preemptions = 0
        self.recomputed_tokens = 0
        """See `EngineStats.recomputed_tokens`."""

    def enqueue(self, sequence: Sequence) -> None:
        """Add a sequence to the queue."""
        known = tuple(sequence.tokens)
        sequence.expected_prefill = len(known) - self.cached(sequence.request.prompt, known)
        due = self._prefilled + PASSED_BY * sequence.expected_prefill
        sequence.prefill_due = min(sequence.prefill_due, due)
        active = {other.tenant for other in (*self.running, *self.waiting)}
        self._shares.join(sequence.tenant, active)
        bisect.insort(self.waiting, sequence, key=Sequence.order)

    def cached(self, prompt: Prompt, tokens: tuple[int, ...]) -> int:
        """Leading tokens of `tokens`, the prompt with what follows it, whose KV is cached.

        Includes what live sequences have decoded. Changes nothing.
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

    def schedule(self) -> list[Work]:
        """Admit waiting sequences, decide what each running one computes, and allocate its slots.

        `prefill_chunk` bounds the tokens of sequences with more than one. Decoding sequences come
        first, so that tokens which a grammar forced do not wait behind a long prompt; then
        prompts. Branches may have to wait, see `BranchRegulator`.
        """
        self._admit()
        decoding = [s for s in self.running if s.computed >= s.tail_start]
        prompts = [s for s in self.running if s.computed < s.tail_start]
        runs = {s.request.run_id for s in decoding}
        branches = math.inf
        if self._regulator is not None:
            share = self._regulator.share(decoding, prompts)
            decoding, branches = share.decoding, share.prompt_tokens
        budget = self._prefill_chunk
        work: list[Work] = []
        for sequence in (*decoding, *sorted(prompts, key=lambda s: s.prefill_due)):
            if not sequence.running:
                continue  # Preempted for an earlier one.
            start, stop = _range(sequence)
            if stop - start > 1:
                # A decoding sequence always advances.
                room = max(budget, 1 if start >= sequence.tail_start else 0)
                if self._is_long(sequence):
                    others = bool(runs - {sequence.request.run_id})
                    beside = self._room_beside(len(decoding) if others else 0)
                    room = room if beside is None else min(room, beside)
                is_branch = start < sequence.tail_start and sequence.request.branch
                if is_branch:
                    room = int(min(room, branches))
                stop = min(stop, start + room)
                budget -= stop - start
                if is_branch:
                    branches -= stop - start
            if start < stop and self._reserve(sequence, stop):
                work.append(Work(sequence, start, stop))
        return sorted(
            (item for item in work if item.sequence.running), key=lambda item: item.rows.order
        )

    def _is_long(self, sequence: Sequence) -> bool:
        """Whether its prompt takes more than one step."""
        return (
            sequence.computed < sequence.tail_start
            and sequence.expected_prefill > self._prefill_chunk
        )

    def advance(self, work: list[Work]) -> None:
        """Note that a step has computed the KV of `work`."""
        for item in work:
            sequence, start, stop = item.sequence, item.start, item.stop
            self._shares.charge(sequence.tenant, len(item) + item.samples)
            if start < sequence.tail_start:
                assert sequence.leaf is not None
                self._tree.advance(sequence.leaf, stop)
                self._prefilled += len(item)
            sequence.computed = stop
            first = min(max(start, sequence.reached), stop)
            self.recomputed_tokens += first - start
            sequence.own_prompt_tokens += max(0, min(stop, sequence.prompt_length) - first)

    def remove(self, sequence: Sequence, keep: int | None = None) -> None:
        """Remove a sequence; what it has computed stays in the tree.

        With `keep`, its prompt and output are pinned for its run at that distance.
        """
        if not sequence.running:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        self._commit(sequence)
        if keep is not None:
            assert sequence.leaf is not None
            self._tree.pin_path(sequence.leaf, sequence.request.run_id, keep)
        self._vacate(sequence)

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless every slot and every lock is accounted for exactly once."""
        self._tree.check_integrity()
        nodes = list(self._tree.nodes())
        held = [slot for node in nodes for slot in node.slots.tolist()]
        paths = {}
        for sequence in self.running:
            assert sequence.leaf is not None, "a running sequence has no leaf"
            paths[sequence] = path = sequence.leaf.path()
            start = sequence.tail_start
            held.extend(sequence.slots[start : sequence.reserved].tolist())
            tokens = [token for node in path for token in node.tokens]
            assert tokens == sequence.tokens[:start], "a path differs from its sequence's tokens"
            slots = [slot for node in path for slot in node.slots.tolist()]
            assert slots == sequence.slots[:start].tolist(), (
                "a path's slots differ from its sequence's"
            )
            assert sequence.computed <= sequence.reserved <= sequence.slots_needed
            assert sequence.computed < len(sequence.tokens), (
                "a running sequence has nothing to compute"
            )
            if sequence.computed >= start:
                assert all(node.complete for node in path), "a tail behind an incomplete path"
        free = self._pool.free_slots()
        assert len(free) == self._pool.free_count, "a slot is free twice"
        assert len(set(held)) == len(held), "a slot is in use twice"
        assert free.isdisjoint(held), "a slot is both free and in use"
        assert len(held) + len(free) == self._pool.capacity, "a slot leaked"
        for node in nodes:
            live = [sequence for sequence, path in paths.items() if node in path]
            assert node.locks == len(live), "a node's locks differ from its live sequences"
            assert node.claimed_by is None or node.claimed_by in live, "a claim of no live sequence"
        assert len(self.running) <= self._max_sequences, "too many running sequences"
        assert not any(sequence.running for sequence in self.waiting), "a waiting sequence holds KV"
        for queue in (self.running, self.waiting):
            assert queue == sorted(queue, key=Sequence.order), "a queue is not sorted"

    def _admit(self) -> None:
        """Admit waiting sequences, as long as there is memory.

        The next one is the first of the tenant that was served least. None overtakes it, or one
        that waits for memory could starve.
        """
        preempted: set[Sequence] = set()
        while self.waiting:
            sequence = self._next()
            if sequence in preempted:
                return  # Or two could take each other's place for ever.
            if len(self.running) < self._max_sequences and self._place(sequence):
                self.waiting.remove(sequence)
                bisect.insort(self.running, sequence, key=Sequence.order)
            elif victim := self._ahead_of(sequence.tenant) or self._branch_for(sequence):
                self._preempt(victim)
                preempted.add(victim)
            else:
                return

    def _next(self) -> Sequence:
        """The first waiting sequence of the tenant that was served least, or runs least."""
        running = Counter(sequence.tenant for sequence in self.running)
        runs = {sequence.run for sequence in self.running}
        first: dict[str, Sequence] = {}
        for sequence in self.waiting:
            known = first.setdefault(sequence.tenant, sequence)
            if known.run in runs and sequence.run not in runs:
                first[sequence.tenant] = sequence
        return min(first.values(), key=lambda s: (self._shares.served(s.tenant), running[s.tenant]))

    def _ahead_of(self, tenant: str) -> Sequence | None:
        """The last sequence of the tenant that runs most, if `tenant` is to have its place.

        That is, if even then `tenant` does not run more, and was not served more.
        """
        running = Counter(sequence.tenant for sequence in self.running)
        most = max(running, key=lambda name: (running[name], self._shares.served(name)))
        if running[most] < running[tenant] + 2:
            return None
        if self._shares.served(most) < self._shares.served(tenant):
            return None
        return next(s for s in reversed(self.running) if s.tenant == most)

    def _branch_for(self, sequence: Sequence) -> Sequence | None:
        """The last branch of the run with the most, if `sequence` is the first of its run.

        Only of its own tenant: between tenants, service decides.
        """
        same = [other for other in self.running if other.tenant == sequence.tenant]
        runs = Counter(other.run for other in same)
        if not runs or sequence.run in runs or max(runs.values()) < 2:
            return None
        most = max(runs, key=lambda run: runs[run])
        return next(other for other in reversed(same) if other.run == most)

    def _place(self, sequence: Sequence) -> bool:
        """Lock the cached part of the sequence's tokens and allocate slots to compute the rest.

        Returns False, with nothing changed, if the sequence would soon be preempted again.
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

    def _reserve(self, sequence: Sequence, end: int) -> bool:
        """Allocate slots for a running sequence's positions below `end`.

        Preempts sequences if necessary; False if it was its own turn.
        """
        missing = end - sequence.reserved
        if missing <= 0:
            return True
        while not self._tree.ensure_free(missing):
            assert len(self.running) > 1, "a sequence does not fit alone"
            # The last one of those that were served most; max() takes the first of equals.
            victim = max(reversed(self.running[1:]), key=lambda s: self._shares.served(s.tenant))
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

    def _headroom(self, newcomer: Sequence) -> int:
        """Slots that must stay free so that all running sequences can decode for a while."""
        reserve = RESUME_ROOM if newcomer.preemptions else GROWTH
        tail = newcomer.slots_needed - len(newcomer.tokens) + 1
        return min(reserve, tail) + sum(
            min(GROWTH, live.slots_needed - live.reserved) for live in self.running
        )

    def _commit_forks(self, prompt: Prompt, tokens: tuple[int, ...]) -> None:
        """Commit decoded tails of live sequences to the tree where `tokens` continues with them.

        With one slot per token this is cheap: no KV is copied, only nodes change.
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
        """Commit the computed tail of a running sequence to the tree."""
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
        logger.debug("preempting a sequence", extra={"run": request.run_id, "node": request.node})
        self.running.remove(sequence)
        self._commit(sequence)
        sequence.reached = max(sequence.reached, sequence.computed)
        sequence.preemptions += 1
        self.preemptions += 1
        self._vacate(sequence)
        self.enqueue(sequence)

    def _vacate(self, sequence: Sequence) -> None:
        """Free a sequence's tail and unlock its path; the path itself stays in the tree."""
        assert sequence.leaf is not None
        self._pool.free(sequence.slots[sequence.tail_start : sequence.reserved])
        self._tree.unlock(sequence.leaf, sequence)
        sequence.leaf = None
        sequence.slots = np.empty(0, np.int64)
        sequence.tail_start = sequence.reserved = sequence.computed = 0


def _range(sequence: Sequence) -> tuple[int, int]:
    """The positions that a sequence can compute: empty while another computes the next ones.

    Claims the nodes of its path that are neither claimed nor computed yet.
    """
    if sequence.computed >= sequence.tail_start:
        return sequence.computed, len(sequence.tokens)
    assert sequence.leaf is not None
    position = 0
    start: int | None = None
    for node in sequence.leaf.path():
        if not node.complete:
            if node.claimed_by is None:
                node.claimed_by = sequence
            if start is None:
                start = position + node.computed
            if node.claimed_by is not sequence:
                return start, max(start, position)
        position += len(node.tokens)
    if start is None:
        start = sequence.computed = sequence.tail_start
    return start, len(sequence.tokens)
