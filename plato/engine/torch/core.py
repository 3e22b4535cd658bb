"""The engine's loop body: requests in, one step at a time, chunks out.

Synchronous and single-threaded; `engine.py` runs it in a thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from plato.engine.capabilities import BUILT_IN
from plato.engine.checks import check_request
from plato.engine.errors import EngineBusyError, RequestRefusedError
from plato.engine.fingerprint import fingerprint
from plato.engine.leases import Leases
from plato.engine.output import Output
from plato.engine.prompt import Prompt, Segment
from plato.engine.protocol import Chunk, FinishReason, GenerateRequest, KVPiece, Load
from plato.engine.sampling import sampler
from plato.engine.sampling.matcher import GrammarCompiler, Matcher
from plato.engine.step_times import StepTimes
from plato.engine.torch.config import TorchEngineConfig
from plato.engine.torch.protocol import Model
from plato.engine.torch.regulator import BranchRegulator
from plato.engine.torch.scheduler import Scheduler, Work
from plato.engine.torch.sequence import Sequence
from plato.engine.torch.tree import KVTree

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)


class EngineCore:
    """Continuous batching over one KV tree."""

    capabilities = BUILT_IN

    def __init__(
        self,
        model: Model,
        config: TorchEngineConfig,
        epoch: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._config = config
        self._epoch = epoch
        self._clock = clock
        adapters = [config.adapter, None] if config.adapter is not None else [None]
        self._kv_fingerprints = {
            fingerprint(config.model_folder, config.dtype, adapter): fingerprint(
                config.model_folder, model.precision, adapter
            )
            for adapter in adapters
        }
        """By fingerprint in prompts, whose makers do not know the precision that `auto` becomes."""
        self._default = next(iter(self._kv_fingerprints))
        """Of prompts without a fingerprint: with the adapter, if there is one."""
        self.pool = model.new_pool(max(1, config.kv_budget_bytes // model.kv_bytes_per_token))
        self.tree = KVTree(self.pool, clock)
        self._step_times = StepTimes()
        self._scheduler = Scheduler(
            self.pool,
            self.tree,
            max_sequences=config.max_sequences,
            prefill_chunk=config.prefill_chunk,
            room_beside=self._step_times.room_beside,
            regulator=BranchRegulator(
                self._step_times, config.branch_slowdown, config.token_target_s
            ),
        )
        self._grammars = GrammarCompiler(model.tokenizer, model.vocabulary)
        self._leases = Leases(clock)
        self._load = self._measure_load()
        self.stepped_at = clock()
        """End of the last step."""
        self.steps = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.output_tokens = 0
        self.imported_tokens = 0
        self.step_sequences = 0
        self.busy_s = 0.0

    @property
    def has_work(self) -> bool:
        """Whether a step would compute or admit anything."""
        return bool(self._scheduler.waiting or self._scheduler.running)

    @property
    def load(self) -> Load:
        """The load, as of the last change."""
        return self._load

    @property
    def live(self) -> tuple[tuple[str, int], ...]:
        """(run, node) of every live sequence."""
        return tuple((s.request.run_id, s.request.node) for s in self._sequences())

    @property
    def has_own_threads(self) -> bool:
        """Whether the model computes with threads other than torch's."""
        return self._model.has_own_threads

    @property
    def preemptions(self) -> int:
        """See `EngineStats.preemptions`."""
        return self._scheduler.preemptions

    @property
    def recomputed_tokens(self) -> int:
        """See `EngineStats.recomputed_tokens`."""
        return self._scheduler.recomputed_tokens

    def cached_prefix(self, prompt: Prompt) -> int:
        """Leading tokens of `prompt` whose KV is cached, including what live sequences decoded."""
        return self._scheduler.cached(prompt, prompt.tokens)

    def add(self, request: GenerateRequest, sink: Callable[[Chunk | Exception], None]) -> Sequence:
        """Queue a sequence. Raises `RequestRefusedError` or `EngineBusyError`.

        `sink` gets its chunks, ending with one that has a finish reason, or with an error.
        """
        self.check(request)
        waiting = len(self._scheduler.waiting)
        if waiting >= self._config.max_waiting:
            raise EngineBusyError(f"{waiting} sequences are waiting; try again later")
        matcher = None
        if request.grammar is not None:
            matcher = self._grammars.matcher(request.grammar.lark, request.emitted)
        output = Output(request, self._model.tokenizer.backend, self._model.end_tokens)
        sequence = Sequence(output, matcher, sink, adapted=self._adapts(request.prompt))
        self._leases.grant(request.lease)
        self._scheduler.enqueue(sequence)
        self._load = self._measure_load()
        return sequence

    def check(self, request: GenerateRequest) -> None:
        """Raise `RequestRefusedError` if a request can never be served.

        Raises `OtherModelError` if it is for another model.
        """
        check_request(
            request,
            fingerprints=self._kv_fingerprints,
            context_length=self._model.context_length,
            vocabulary=self._model.vocabulary,
        )
        length = len(request.prompt) + request.max_tokens
        if length > self.pool.capacity:
            raise RequestRefusedError(
                f"the request needs {length} KV tokens, and the KV budget is {self.pool.capacity}; "
                "shorten the request or raise the KV budget",
                "max_tokens",
            )

    def renew(self, owner: str, ttl_s: float) -> None:
        """Extend a consumer's lease, if it has live sequences."""
        self._leases.renew(owner, ttl_s)

    def cancel(self, match: Callable[[Sequence], bool]) -> None:
        """Cancel the sequences that match."""
        for sequence in self._sequences():
            if match(sequence):
                sequence.output.finish = FinishReason.CANCELLED
                self._end(sequence, "")

    def pin(self, run_id: str, prompt: Prompt, distance: int) -> None:
        """Pin the cached part of `prompt` for `run`."""
        self.tree.pin(prompt, run_id, distance)

    def release(self, run_id: str) -> None:
        """Drop the pins of a run."""
        self.tree.release(run_id)

    def export_kv(self, prompt: Prompt, start: int) -> KVPiece | None:
        """KV of the computed part of `prompt` from position `start` on."""
        slots = self.tree.slots_of(prompt, start)
        if not len(slots):
            return None
        keys, values = self.pool.read(slots)
        stop = start + len(slots)
        return KVPiece(start, stop, keys, values, self.pool.dtype, self._kv_fingerprint(prompt))

    def import_kv(self, prompt: Prompt, piece: KVPiece) -> int:
        """Store KV that another engine has computed; returns the number of tokens stored."""
        expected = self._kv_fingerprint(prompt)
        if piece.fingerprint != expected:
            logger.warning(
                "KV of another model refused: %s instead of %s", piece.fingerprint, expected
            )
            return 0
        if not 0 <= piece.start < piece.stop <= len(prompt) or not self.pool.fits(piece):
            return 0

        def write(slots: NDArray[np.int64]) -> None:
            count = len(slots)
            self.pool.write(slots, piece.keys[:, -count:], piece.values[:, -count:])

        count = self.tree.adopt(prompt, piece.start, piece.stop, write)
        self.imported_tokens += count
        self._load = self._measure_load()
        return count

    def expire(self) -> None:
        """Cancel the sequences of consumers with expired leases, and drop expired pins."""
        self.tree.expire_pins()
        expired = self._leases.take_expired()
        if not expired:
            return
        runs = {s.request.run_id for s in self._sequences() if _owner(s) in expired}
        logger.warning(
            "lease expired, cancelling the sequences of %s",
            sorted(expired),
            extra={"runs": sorted(runs)},
        )
        self.cancel(lambda sequence: _owner(sequence) in expired)

    @torch.inference_mode()
    def step(self) -> None:
        """Schedule and compute one step, and pass the chunks to the sinks."""
        began = time.perf_counter()
        work = self._scheduler.schedule()
        if not work:
            self._load = self._measure_load()
            return
        self.steps += 1
        logits = self._compute(work)
        sequences = [item.sequence for item in work if item.samples]
        self._scheduler.advance(work)
        self._load = self._measure_load()
        self.step_sequences += len(sequences)
        if sequences:
            choices = sampler.choose(logits, [sequence.draw() for sequence in sequences])
            for sequence, choice in zip(sequences, choices, strict=True):
                self._take(sequence, choice)
        self.stepped_at = self._clock()
        self.busy_s += time.perf_counter() - began

    def check_integrity(self) -> None:
        """Raise `AssertionError` unless KV, queues and counters are consistent."""
        self._scheduler.check_integrity()
        live = self._sequences()
        owners = {_owner(sequence) for sequence in live} - {None}
        assert self._leases.owners == owners, "leases differ from those of the live sequences"
        assert self._load == self._measure_load(), "the load is stale"
        assert all(0 <= s.own_prompt_tokens <= s.prompt_length for s in live), (
            "cached tokens are wrong"
        )

    def forced_tokens(self, matcher: Matcher) -> list[int]:
        """Tokens that a grammar leaves no choice about; they are appended without a step."""
        return matcher.forced()

    def _compute(self, work: list[Work]) -> torch.Tensor:
        """Compute the work of a step; returns the logits of the items that sample."""
        tokens: list[int] = []
        wanted: list[int] = []
        for item in work:
            tokens += item.tokens
            if item.samples:
                wanted.append(len(tokens) - 1)
        started = time.perf_counter()
        logits = self._model.forward(self.pool, tokens, [item.rows for item in work], wanted)
        seconds = time.perf_counter() - started
        if len(tokens) == len(work):
            self._step_times.note(len(work), seconds)
        else:
            width = sum(len(item) == 1 for item in work)
            self._step_times.note_prefill(width, len(tokens) - width, seconds)
        return logits

    def _adapts(self, prompt: Prompt) -> bool:
        """Whether a prompt is computed with the adapter."""
        return self._config.adapter is not None and self._model_of(prompt) == self._default

    def _model_of(self, prompt: Prompt) -> str:
        """The fingerprint, as in prompts, of the model that computes a prompt."""
        return prompt.fingerprint or self._default

    def _kv_fingerprint(self, prompt: Prompt) -> str:
        return self._kv_fingerprints.get(self._model_of(prompt), "")

    def _sequences(self) -> list[Sequence]:
        return [*self._scheduler.running, *self._scheduler.waiting]

    def _measure_load(self) -> Load:
        scheduler = self._scheduler
        return Load(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            prefill_tokens=self.tree.pending + sum(s.expected_prefill for s in scheduler.waiting),
            kv_free=self.pool.free_count + self.tree.evictable,
            kv_evictable=self.tree.evictable,
            places=self._config.max_sequences,
            runs=len({sequence.request.run_id for sequence in self._sequences()}),
            step_times=self._step_times.curve,
            prefill_s=self._step_times.prefill_s,
            kv_capacity=self.pool.capacity,
        )

    def _take(self, sequence: Sequence, choice: sampler.Choice) -> None:
        """Append the sampled token and report it."""
        first = sequence.output.steps == 0
        try:
            self.output_tokens += sequence.take(choice, self.forced_tokens)
        except RequestRefusedError as error:
            # A grammar can turn out to have a dead end; other sequences are not affected.
            self._remove(sequence)
            sequence.sink(error)
            return
        if first:
            self.prompt_tokens += sequence.prompt_length
            self.cached_tokens += sequence.cached_tokens
            self.tree.mark(sequence.request.prompt)
        text = sequence.output.release()
        if sequence.output.finish is not None:
            self._end(sequence, text)
        else:
            sequence.sink(self._chunk(sequence, text))

    def _end(self, sequence: Sequence, text: str) -> None:
        """Send the last chunk of a sequence that has a finish reason."""
        self._remove(sequence)
        sequence.sink(self._chunk(sequence, text))

    def _chunk(self, sequence: Sequence, text: str) -> Chunk:
        return sequence.output.chunk(
            text,
            cached_tokens=sequence.cached_tokens,
            replica=self._config.name,
            epoch=self._epoch,
            load=self._load,
        )

    def _remove(self, sequence: Sequence) -> None:
        """Remove a sequence, and its consumer's lease if it was the last of that consumer."""
        finished = sequence.output.finish in (FinishReason.STOP, FinishReason.LENGTH)
        running = sequence.running
        self._scheduler.remove(sequence, sequence.request.keep if finished else None)
        if finished and running:
            output = Segment(tuple(sequence.output.tokens))
            self.tree.mark(sequence.request.prompt.extended(output))
        self._load = self._measure_load()
        self._leases.retain({_owner(other) for other in self._sequences()})


def _owner(sequence: Sequence) -> str | None:
    lease = sequence.request.lease
    return None if lease is None else lease.owner
