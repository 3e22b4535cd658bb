"""The engine's loop body: who is admitted, what one step computes, what comes of it.

Synchronous and single-threaded; `engine.py` gives it a thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from plato.engine.errors import EngineBusyError, RequestRefusedError
from plato.engine.protocol import Chunk, FinishReason, GenerateRequest, Load
from plato.engine.torch.attention import Rows
from plato.engine.torch.config import TorchEngineConfig
from plato.engine.torch.grammar import GrammarCompiler
from plato.engine.torch.model import LanguageModel
from plato.engine.torch.sampling import allow_only_, penalise_, sample, top_alternatives
from plato.engine.torch.sequence import Sequence
from plato.engine.torch.text import TextStream
from plato.engine.torch.tree import KVTree

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """New tokens of one sequence in a step: positions [start, stop)."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def samples(self) -> bool:
        """Whether the step reaches the sequence's end, so that its next token can be chosen."""
        return self.stop == len(self.sequence.tokens)


class EngineCore:
    """Continuous batching over one KV tree.

    Memory is reserved for a sequence's whole budget when it is admitted, so a running sequence
    never runs out of it, and a waiting one waits only for others to end.
    """

    def __init__(
        self,
        model: LanguageModel,
        config: TorchEngineConfig,
        epoch: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._config = config
        self._epoch = epoch
        self._clock = clock
        self.pool = model.new_pool(max(1, config.kv_budget_bytes // model.kv_bytes_per_token))
        self.tree = KVTree(self.pool)
        self._grammars = GrammarCompiler(model.tokenizer, model.vocabulary)
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []
        self._leases: dict[str, float] = {}
        """Deadline of every consumer with a live sequence; others are dropped on expiry."""
        self._load = self._measure_load()
        self.stepped_at = clock()
        """When the last step ended."""
        self.steps = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.output_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether a step would compute or admit anything."""
        return bool(self._waiting or self._running)

    @property
    def load(self) -> Load:
        """What there is to do, as of the last change."""
        return self._load

    @property
    def live(self) -> tuple[tuple[str, int], ...]:
        """(run, node) of every sequence."""
        return tuple(
            (sequence.request.run, sequence.request.node)
            for sequence in (*self._running, *self._waiting)
        )

    def _measure_load(self) -> Load:
        return Load(
            running=len(self._running),
            waiting=len(self._waiting),
            prefill_tokens=self.tree.pending()
            + sum(sequence.expected_prefill for sequence in self._waiting),
            kv_free=self.pool.free_count + self.tree.evictable(),
        )

    def add(self, request: GenerateRequest, sink: Callable[[Chunk | Exception], None]) -> Sequence:
        """Queue a sequence. Raises `RequestRefusedError` or `EngineBusyError`.

        `sink` gets its chunks up to one with a finish reason, or an error, which ends it too.
        """
        self.check(request)
        if len(self._waiting) >= self._config.max_waiting:
            raise EngineBusyError(
                f"{len(self._waiting)} sequences are waiting already; try again later"
            )
        text = TextStream(self._model.tokenizer, request.stop.strings)
        text.push(request.emitted)  # Its text was released the first time.
        matcher = None
        if request.grammar is not None:
            matcher = self._grammars.matcher(request.grammar, request.emitted)
        sequence = Sequence(request, text, matcher, sink)
        sequence.expected_prefill = len(sequence.tokens) - self.tree.cached_prefix(request.prompt)
        if request.lease is not None:
            self._leases[request.lease.owner] = self._clock() + request.lease.ttl_s
        self._waiting.append(sequence)
        self._waiting.sort(key=Sequence.order)
        self._load = self._measure_load()
        return sequence

    def check(self, request: GenerateRequest) -> None:
        """Raise `RequestRefusedError` for what can never be served."""
        if len(request.prompt) == 0:
            raise RequestRefusedError("the prompt is empty")
        if request.max_tokens <= len(request.emitted):
            raise RequestRefusedError(
                f"a budget of {request.max_tokens} output tokens leaves nothing to decode after "
                f"{len(request.emitted)} emitted ones"
            )
        if "" in request.stop.strings:
            raise RequestRefusedError("a stop string is empty; leave it out")
        length = len(request.prompt) + request.max_tokens
        if length > self._model.context_length:
            raise RequestRefusedError(
                f"{len(request.prompt)} prompt tokens and a budget of {request.max_tokens} pass "
                f"the model's context of {self._model.context_length} tokens; shorten one of them"
            )
        if length > self.pool.capacity:
            raise RequestRefusedError(
                f"{length} tokens of KV are needed, the KV budget holds {self.pool.capacity}; "
                "shorten the request or raise the budget"
            )

    def renew(self, owner: str, ttl_s: float) -> None:
        """Extend a consumer's lease, if it has live sequences here."""
        if owner in self._leases:
            self._leases[owner] = self._clock() + ttl_s

    def cancel(self, match: Callable[[Sequence], bool]) -> None:
        """End the sequences that match."""
        for sequence in [*self._waiting, *self._running]:
            if match(sequence):
                self._end(sequence, FinishReason.CANCELLED)

    def expire(self) -> None:
        """Cancel the sequences of consumers that have gone silent."""
        now = self._clock()
        expired = {owner for owner, deadline in self._leases.items() if deadline <= now}
        if not expired:
            return
        logger.warning("cancelling the sequences of silent consumers: %s", sorted(expired))
        self.cancel(lambda s: s.request.lease is not None and s.request.lease.owner in expired)
        for owner in expired:
            self._leases.pop(owner, None)

    @torch.inference_mode()
    def step(self) -> None:
        """Admit what fits, compute one step, and hand the chunks to the sinks."""
        self._admit()
        work = self._plan_step()
        if not work:
            return
        self.steps += 1
        wanted: list[int] = []
        samplers: list[Sequence] = []
        tokens: list[int] = []
        for item in work:
            tokens.extend(item.sequence.tokens[item.start : item.stop])
            if item.samples:
                wanted.append(len(tokens) - 1)
                samplers.append(item.sequence)
        rows = [Rows(item.sequence.slots[: item.stop], item.stop - item.start) for item in work]
        logits = self._model.forward(self.pool, tokens, rows, wanted)
        for item in work:
            self._computed(item)
        self._load = self._measure_load()
        for sequence, row in zip(samplers, logits, strict=True):
            try:
                self._choose(sequence, row)
            except RequestRefusedError as error:
                # A grammar can turn out to lead nowhere; that is no trouble of the others.
                self._detach(sequence)
                sequence.sink(error)
            else:
                self._report(sequence)
        self.stepped_at = self._clock()

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless every slot of KV is accounted for exactly once."""
        held = [slot for node in self.tree.nodes() for slot in node.slots.tolist()]
        for sequence in self._running:
            held.extend(sequence.slots[sequence.tail_start :].tolist())
        free = self.pool.free_slots()
        assert len(free) == self.pool.free_count, "a slot is free twice"
        assert len(set(held)) == len(held), "a slot is held twice"
        assert free.isdisjoint(held), "a slot is free and held"
        assert len(held) + len(free) == self.pool.capacity, "a slot is lost"
        for node in self.tree.nodes():
            paths = [s for s in self._running if s.leaf and node in s.leaf.path()]
            assert node.locks == len(paths), "a node's locks are not its live sequences"
            assert len(node.tokens) == len(node.slots), "a node's slots are not its tokens"
            assert node.complete or node.locks, "an incomplete node that nobody needs"
            assert node.claimed_by is None or node.claimed_by in paths, "a claim of nobody"
            for child in node.children.values():
                assert child.parent is node, "a child has another parent"
                assert child.computed == 0 or node.complete, "a child before its parent"

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._config.max_sequences:
            if not self._place(self._waiting[0]):
                return
            self._running.append(self._waiting.pop(0))

    def _place(self, sequence: Sequence) -> bool:
        """Lock the sequence's prefix and reserve memory for the rest; False if there is none."""
        prompt = sequence.request.prompt
        known = tuple(sequence.tokens[: sequence.tail_start])
        node, found = self.tree.lock(prompt, known)
        need = sequence.needed_slots - found
        if not self.tree.ensure_free(need):
            self.tree.unlock(node, sequence)
            return False
        new = self.pool.allocate(need)
        own = sequence.tail_start - found
        path_slots = [step.slots for step in node.path()]
        sequence.leaf = self.tree.grow(node, prompt, known, found, new[:own])
        sequence.slots = np.concatenate([*path_slots, new])
        return True

    def _plan_step(self) -> list[Work]:
        """Decide what each sequence computes: decoding always, prefill within its bound."""
        budget = self._config.prefill_chunk
        work: list[Work] = []
        for sequence in self._running:
            item = self._next_work(sequence, budget)
            if item is None:
                continue
            work.append(item)
            if item.stop - item.start > 1:
                budget -= item.stop - item.start
        # The attention wants sequences with one new token first.
        work.sort(key=lambda item: item.stop - item.start > 1)
        return work

    def _next_work(self, sequence: Sequence, budget: int) -> Work | None:
        assert sequence.leaf is not None
        end = len(sequence.tokens)
        start = sequence.tail_start + sequence.tail_computed
        if sequence.tail_computed == 0:
            start, limit = self._claim(sequence)
            if limit < sequence.tail_start:
                end = limit
        if end - start > 1:
            end = min(end, start + budget)
        return Work(sequence, start, end) if start < end else None

    def _claim(self, sequence: Sequence) -> tuple[int, int]:
        """Claim what of the prefix is not computed; returns the positions it may compute.

        The range is empty while another sequence is computing what comes next.
        """
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
                    return start, position if start < position else start
            position += len(node.tokens)
        return (sequence.tail_start if start is None else start), sequence.tail_start

    def _computed(self, item: Work) -> None:
        """Note the KV that a step has brought."""
        sequence = item.sequence
        assert sequence.leaf is not None
        position = 0
        if item.start < sequence.tail_start:
            for node in sequence.leaf.path():
                if not node.complete:
                    node.computed = min(len(node.tokens), max(0, item.stop - position))
                    if node.complete:
                        node.claimed_by = None
                position += len(node.tokens)
        sequence.tail_computed = max(sequence.tail_computed, item.stop - sequence.tail_start)
        sequence.own_prompt_tokens += max(0, min(item.stop, sequence.prompt_length) - item.start)

    def _choose(self, sequence: Sequence, logits: torch.Tensor) -> None:
        """Take the next token, and those that the grammar forces behind it."""
        request = sequence.request
        params = request.sampling
        position = sequence.output_length
        penalise_(logits, sequence.output, params)
        if sequence.matcher is not None:
            allow_only_(logits, sequence.matcher.mask())
        if position == 0:
            if request.report_first:
                sequence.first = top_alternatives(logits, request.report_first)
            for token, bias in params.first_token_bias:
                logits[token] += bias
        token = sample(logits, params, request.node, position)
        sequence.steps += 1
        if sequence.steps == 1:
            self.prompt_tokens += sequence.prompt_length
            self.cached_tokens += sequence.cached_tokens
        before = len(sequence.tokens)
        sequence.append([token])
        if token in self._model.end_tokens and request.stop.end_tokens:
            sequence.finish = FinishReason.STOP
        elif sequence.matcher is not None:
            sequence.matcher.consume([token])
            fits = sequence.append(sequence.matcher.forced())
            if fits and sequence.matcher.complete:
                sequence.finish = FinishReason.STOP
        self.output_tokens += len(sequence.tokens) - before

    def _report(self, sequence: Sequence) -> None:
        """Send what is new, and end the sequence if it has ended."""
        new = sequence.tokens[sequence.reported :]
        text = sequence.text.push(new)
        if sequence.text.stopped:
            sequence.finish = FinishReason.STOP
        elif sequence.finish is None and sequence.output_length >= sequence.request.max_tokens:
            sequence.finish = FinishReason.LENGTH
        if sequence.finish is not None:
            text += sequence.text.flush()
            self._end(sequence, sequence.finish, text)
            return
        sequence.sink(self._chunk(sequence, text))

    def _chunk(self, sequence: Sequence, text: str) -> Chunk:
        new = tuple(sequence.tokens[sequence.reported :])
        offset = sequence.reported - sequence.prompt_length
        sequence.reported = len(sequence.tokens)
        return Chunk(
            run=sequence.request.run,
            node=sequence.request.node,
            attempt=sequence.request.attempt,
            offset=offset,
            tokens=new,
            text=text,
            finish=sequence.finish,
            prompt_tokens=sequence.prompt_length,
            cached_tokens=sequence.cached_tokens,
            replica=self._config.name,
            epoch=self._epoch,
            load=self._load,
            first=sequence.first if offset == 0 else (),
            steps=sequence.steps,
        )

    def _end(self, sequence: Sequence, finish: FinishReason, text: str = "") -> None:
        """End a sequence with a last chunk."""
        sequence.finish = finish
        self._detach(sequence)
        sequence.sink(self._chunk(sequence, text))

    def _detach(self, sequence: Sequence) -> None:
        """Take a sequence out; what it computed stays in the tree for others."""
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        else:
            self._running.remove(sequence)
            assert sequence.leaf is not None
            start, computed = sequence.tail_start, sequence.tail_start + sequence.tail_computed
            self.pool.free(sequence.slots[computed:])
            if sequence.tail_computed:
                self.tree.keep(
                    sequence.leaf,
                    sequence.request.prompt,
                    tuple(sequence.tokens[:computed]),
                    start,
                    sequence.slots[start:computed],
                )
            self.tree.unlock(sequence.leaf, sequence)
        self._load = self._measure_load()
        lease = sequence.request.lease
        if lease is not None and not any(
            other.request.lease is not None and other.request.lease.owner == lease.owner
            for other in (*self._running, *self._waiting)
        ):
            self._leases.pop(lease.owner, None)
