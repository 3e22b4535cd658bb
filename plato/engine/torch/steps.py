"""What one step computes: decoding always, prefill within its bound."""

from __future__ import annotations

from dataclasses import dataclass

from plato.engine.torch.attention import Rows
from plato.engine.torch.residency import Residency
from plato.engine.torch.sequence import Sequence
from plato.engine.torch.tree import KVTree


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
        """Whether the step reaches the sequence's end, so that its next token can be chosen."""
        return self.stop == len(self.sequence.tokens)

    @property
    def tokens(self) -> list[int]:
        """The tokens to compute."""
        return self.sequence.tokens[self.start : self.stop]

    @property
    def rows(self) -> Rows:
        """Where they are and what they look at; a view, valid until the next step is planned."""
        return Rows(self.sequence.slots[: self.stop], len(self))


def plan_step(residency: Residency, budget: int) -> list[Work]:
    """Decide what each running sequence computes, and reserve the memory for it.

    `budget` bounds the tokens of sequences with more than one. Those that decode come first, so
    that tokens which a grammar forced do not wait behind a long prompt; then prompts, in the order
    of claims.
    """
    work: list[Work] = []
    for sequence in sorted(residency.running, key=lambda s: s.computed < s.tail_start):
        if not sequence.running:
            continue  # Preempted for one before it.
        start, stop = _range(sequence)
        if stop - start > 1:
            # A sequence that decodes never stands still.
            least = 1 if start >= sequence.tail_start else 0
            stop = min(stop, start + max(budget, least))
            budget -= stop - start
        if start < stop and residency.reserve(sequence, stop):
            work.append(Work(sequence, start, stop))
    # The attention wants sequences with one new token first.
    return sorted((item for item in work if item.sequence.running), key=lambda item: len(item) > 1)


def note_computed(work: list[Work], tree: KVTree) -> int:
    """Note the KV that a step has brought; returns how many tokens of it were there before."""
    again = 0
    for item in work:
        sequence, start, stop = item.sequence, item.start, item.stop
        if start < sequence.tail_start:
            assert sequence.leaf is not None
            tree.advance(sequence.leaf, stop)
        sequence.computed = stop
        first = min(max(start, sequence.reached), stop)
        again += first - start
        sequence.own_prompt_tokens += max(0, min(stop, sequence.prompt_length) - first)
    return again


def _range(sequence: Sequence) -> tuple[int, int]:
    """The positions that a sequence may compute: empty while another computes what comes next.

    It claims what of its path nobody has claimed or computed yet.
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
