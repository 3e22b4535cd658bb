"""The sequences that vLLM computes: requests in, chunks out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from plato.engine.capabilities import Capabilities, PrefixSharing, Scores
from plato.engine.checks import check_capabilities, check_request
from plato.engine.errors import EngineBusyError, EngineClosedError, EngineError, RequestRefusedError
from plato.engine.live import LiveSequences, owned_by
from plato.engine.prompt import Prompt, Segment
from plato.engine.protocol import Chunk, GenerateRequest, Grammar, Load
from plato.engine.sampling.matcher import GrammarCompiler
from plato.engine.tokenizer_config import end_tokens
from plato.engine.vllm.blocks import BlockIndex
from plato.engine.vllm.config import VllmConfig
from plato.engine.vllm.protocol import Backend, Step
from plato.engine.vllm.sequence import VllmSequence
from plato.tasks import end_task, repeat

logger = logging.getLogger(__name__)

WATCH_INTERVAL_S = 0.1
WARM_UP_S = 300.0
END_S = 10.0
MAX_SCORES = 128
"""Tokens whose log probabilities vLLM reports."""


class VllmCore:
    """Reads what vLLM decodes, and knows what it has cached and who waits for what.

    Belongs to the event loop in which it is made; other threads may read `load`, `cached_prefix`
    and counters, as hints.
    """

    def __init__(self, backend: Backend, config: VllmConfig, epoch: str) -> None:
        self._backend = backend
        self._config = config
        self._epoch = epoch
        self.index = BlockIndex(
            backend.block_tokens,
            lambda prompt: backend.adapter if config.adapts(prompt) else None,
        )
        self.live = LiveSequences[VllmSequence]()
        self.failure: EngineError | None = None
        """Why it takes no more sequences."""
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.output_tokens = 0
        self.end_tokens = end_tokens(config.model_folder, config.tokenizer)
        self._grammars = GrammarCompiler(config.tokenizer, backend.vocabulary)
        self._tasks: set[asyncio.Task[None]] = set()
        """Those of the live sequences, and of others that vLLM is told to abort."""
        self._watchers = (
            asyncio.create_task(self._follow_cache(), name="vllm-kv-events"),
            asyncio.create_task(repeat(WATCH_INTERVAL_S, self._watch), name="vllm-watch"),
        )

    @property
    def capabilities(self) -> Capabilities:
        """See `Engine.capabilities`."""
        return Capabilities(
            prefix_granularity=self._backend.block_tokens,
            prefix_sharing=PrefixSharing.COMPUTING,
            kv_events=True,
            kv_transfer=False,
            pins=False,
            grammars=frozenset({"lark"}),
            grammar_resumption=True,
            forced_tokens=False,
            scores=Scores.LOG_PROBABILITIES,
            keyed_seeds=True,
            exempt_penalties=True,
            scripts=True,
            tenants=True,
            priority=True,
            token_ids=True,
            public_sharing=False,
        )

    @property
    def load(self) -> Load:
        """The load, with the KV that was in use after vLLM's last step."""
        running = sum(sequence.begun for sequence in self.live)
        capacity = self._backend.kv_tokens
        used = round(capacity * self._backend.statistics.kv_usage)
        return Load(
            running=running,
            waiting=len(self.live) - running,
            places=self._config.max_sequences,
            runs=self.live.runs,
            prefill_tokens=self.live.prefill_tokens,
            kv_free=capacity - used,
            kv_evictable=min(capacity - used, max(0, self.index.tokens - used)),
            kv_capacity=capacity,
        )

    async def warm_up(self) -> None:
        """Decode a token under a grammar, with its score, before anybody waits for it.

        What workers need for that is compiled and built at its first use, which takes seconds.
        Raises `EngineError` if vLLM does not do it.
        """
        request = GenerateRequest(
            "warm-up",
            0,
            Prompt((Segment((0,), public=True),)),
            max_tokens=1,
            grammar=Grammar("start: /[0-9]/"),
            score=(0,),
        )
        try:
            async with asyncio.timeout(WARM_UP_S):
                steps = [step async for step in self._backend.generate(request, frozenset())]
        except TimeoutError as error:
            raise EngineError(f"vLLM has decoded no token in {WARM_UP_S:.0f} s") from error
        if [len(step.scores) for step in steps] != [1]:
            raise EngineError("vLLM does not report log probabilities; install vLLM 0.32")

    def check(self, request: GenerateRequest) -> None:
        """Raise `RequestRefusedError` or `OtherModelError` if a request can never be served."""
        check_request(
            request,
            fingerprints=self._config.fingerprints,
            context_length=self._backend.context_length,
            vocabulary=self._backend.vocabulary,
        )
        check_capabilities(request, self.capabilities)
        if len(request.score) > MAX_SCORES:
            raise RequestRefusedError(
                f"score has {len(request.score)} tokens; vLLM reports at most {MAX_SCORES}", "score"
            )

    def add(self, sequence: VllmSequence) -> None:
        """Have a sequence decoded into its mailbox, or tell it why not."""
        try:
            self._prepare(sequence)
        except EngineError as error:
            sequence.mailbox.put(error)
            return
        self.live.add(sequence)
        sequence.task = asyncio.create_task(self._decode(sequence), name="vllm-sequence")
        self._tasks.add(sequence.task)
        # Not in the task, which may be cancelled before it begins.
        sequence.task.add_done_callback(lambda _: self.live.remove(sequence))
        sequence.task.add_done_callback(self._tasks.discard)

    def cancel(self, match: Callable[[GenerateRequest], bool]) -> None:
        """Cancel the sequences of requests that match."""
        for sequence in self.live.cancel(match):
            self._end(sequence, "")

    def chunk(self, sequence: VllmSequence, text: str) -> Chunk:
        """What a sequence has not reported yet; `text` is released with it."""
        return sequence.output.chunk(
            text,
            cached_tokens=sequence.cached_tokens,
            replica=self._config.name,
            epoch=self._epoch,
            load=self.load,
        )

    async def close(self) -> None:
        """End all sequences, then vLLM."""
        self._fail(EngineClosedError("the engine is shutting down"))
        try:
            async with asyncio.timeout(END_S):
                for task in (*self._watchers, *self._tasks):
                    await end_task(task)
        finally:
            self._backend.shutdown()

    def _prepare(self, sequence: VllmSequence) -> None:
        """Raise `EngineClosedError`, `EngineBusyError`, or `RequestRefusedError` for a grammar."""
        if self.failure is not None:
            raise EngineClosedError(str(self.failure))
        waiting = len(self.live) - self._config.max_sequences
        if waiting >= self._config.max_waiting:
            raise EngineBusyError(f"{waiting} sequences are waiting; try again later")
        request = sequence.request
        if request.grammar is not None:
            sequence.matcher = self._grammars.matcher(request.grammar.lark, request.emitted)
        sequence.prefill_tokens = len(request.prompt) - self._expected_cached(request.prompt)

    def _expected_cached(self, prompt: Prompt) -> int:
        """Leading tokens of `prompt` that are cached, or being computed for another sequence."""
        computing = {chain for s in self.live if not s.begun for chain in s.request.prompt.hashes}
        length = shared = 0
        for chain, segment in zip(prompt.hashes, prompt.segments, strict=True):
            length += len(segment.tokens)
            if chain in computing:
                shared = length
        return max(shared, self.index.cached(prompt))

    async def _decode(self, sequence: VllmSequence) -> None:
        """Decode a sequence into its mailbox."""
        try:
            await self._read(sequence)
        except EngineError as error:
            self._abandon(sequence, error)
        except Exception as error:
            logger.exception("a sequence has failed")
            self._abandon(sequence, EngineError(f"vLLM failed: {error}"))

    async def _read(self, sequence: VllmSequence) -> None:
        """Read vLLM's tokens, up to the end of the output."""
        output = sequence.output
        async with aclosing(self._backend.generate(sequence.request, self.end_tokens)) as steps:
            async for step in steps:
                if not sequence.begun:
                    self._begin(sequence, step)
                text = sequence.take(step.tokens)
                if output.finish is not None:
                    self._note_output(sequence)
                    self._end(sequence, text)
                    return
                sequence.mailbox.put(self.chunk(sequence, text))
        raise EngineError("vLLM ended the sequence early; see its log")

    def _begin(self, sequence: VllmSequence, step: Step) -> None:
        """The prompt of a sequence has been computed."""
        prompt = sequence.request.prompt
        sequence.begun = True
        sequence.output.scores = step.scores
        sequence.cached_tokens = min(step.cached_tokens, len(prompt))
        self.live.note_prefilled(sequence)
        self.prompt_tokens += len(prompt)
        self.cached_tokens += sequence.cached_tokens
        self.index.note(prompt, len(prompt))

    def _end(self, sequence: VllmSequence, text: str) -> None:
        """Send the last chunk of a sequence, which is then no part of the load any more."""
        self.live.remove(sequence)
        sequence.mailbox.put(self.chunk(sequence, text))

    def _abandon(self, sequence: VllmSequence, error: EngineError) -> None:
        """End a sequence with an error."""
        self.live.remove(sequence)
        sequence.mailbox.put(error)

    def _note_output(self, sequence: VllmSequence) -> None:
        """A sequence has been decoded to its end."""
        request, tokens = sequence.request, sequence.output.tokens
        self.output_tokens += len(tokens) - len(request.emitted)
        whole = request.prompt.extended(Segment(tuple(tokens)))
        self.index.note(whole, len(whole) - 1)

    def _fail(self, error: EngineError) -> None:
        """End all sequences with an error, and take no more."""
        self.failure = self.failure or error
        self.live.fail(str(self.failure))

    async def _follow_cache(self) -> None:
        try:
            async for events in self._backend.kv_events():
                self.index.apply(events)
        except Exception:
            logger.exception("KV events of vLLM cannot be read; what it has cached is unknown")
            self.index.clear()

    async def _watch(self) -> None:
        """Check leases, and whether vLLM is alive."""
        if expired := self.live.take_expired():
            logger.warning("lease expired, cancelling the sequences of %s", sorted(expired))
            self.cancel(owned_by(expired))
        if self._backend.failed and self.failure is None:
            logger.error("vLLM has failed")
            self._fail(EngineClosedError("vLLM has failed; see its log"))
