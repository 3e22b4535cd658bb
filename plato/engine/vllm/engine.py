"""vLLM as an engine: `VllmCore` in an event loop of its own, behind the `Engine` protocol."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable

from plato.engine.capabilities import Capabilities
from plato.engine.errors import EngineClosedError, EngineError
from plato.engine.output import Output
from plato.engine.prompt import Prompt
from plato.engine.protocol import Chunk, EngineStats, GenerateRequest, KVEventBatch, KVPiece
from plato.engine.vllm.config import VllmConfig
from plato.engine.vllm.core import VllmCore
from plato.engine.vllm.protocol import Backend
from plato.engine.vllm.sequence import VllmSequence
from plato.loop_thread import LoopThread


def start_vllm(config: VllmConfig) -> Backend:
    """Start vLLM in the running event loop, which it blocks. Raises `EngineError`."""
    try:
        from plato.engine.vllm.backend import VllmBackend
    except ImportError as error:
        raise EngineError(
            f"the engine vllm cannot be imported ({error}); install vLLM 0.32: "
            "pip install 'plato-serve[vllm]'"
        ) from error
    return VllmBackend(config)


class VllmEngine:
    """vLLM's `AsyncLLM`, started and asked in a thread of its own."""

    def __init__(
        self, config: VllmConfig, *, start: Callable[[VllmConfig], Backend] = start_vllm
    ) -> None:
        """Start vLLM; takes minutes, do not call it in an event loop's thread.

        `start` replaces vLLM. Raises `EngineError` if it is not installed or cannot serve the
        model.
        """
        self._config = config
        self._epoch = uuid.uuid4().hex[:12]
        self._closed = False
        self._loop = LoopThread("plato-vllm")
        try:
            self._loop.run(self._start(start))
        except BaseException:
            self._loop.end()
            raise

    @property
    def epoch(self) -> str:
        """Random identifier of this incarnation of the engine."""
        return self._epoch

    @property
    def capabilities(self) -> Capabilities:
        """See `Engine.capabilities`."""
        return self._core.capabilities

    @property
    def context_length(self) -> int:
        """Longest sequence that vLLM has room for, in tokens."""
        return self._backend.context_length

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk]:
        """Decode one sequence; see `Engine.generate`."""
        self._require_alive()
        self._core.check(request)
        output = Output(request, self._config.tokenizer.backend, self._core.end_tokens)
        sequence = VllmSequence(output)
        acknowledgement = self._core.chunk(sequence, "")
        self._loop.post(self._core.add, sequence)
        # If the loop has just ended, nothing is added any more.
        self._require_alive()
        finished = False
        try:
            yield acknowledgement
            while not finished:
                chunk = await sequence.mailbox.get()
                finished = chunk.finish is not None
                yield chunk
        finally:
            if not finished:
                self._loop.post(sequence.stop)

    def renew(self, owner: str, ttl_s: float) -> None:
        """Extend the lease of all sequences of `owner` to `ttl_s` seconds from now."""
        self._loop.post(self._core.live.renew, owner, ttl_s)

    def cancel(self, run_id: str, node: int | None = None) -> None:
        """Cancel a run's sequences, or one node's."""
        self._loop.post(self._core.cancel, lambda r: r.run_id == run_id and node in (None, r.node))

    def cached_prefix(self, prompt: Prompt) -> int:
        """Leading tokens of `prompt` that are cached: a hint, as events may be on their way."""
        return self._core.index.cached(prompt)

    def pin(self, run_id: str, prompt: Prompt, distance: int) -> None:
        """Nothing: vLLM has no pins."""

    def release(self, run_id: str) -> None:
        """Nothing: vLLM has no pins."""

    async def export_kv(self, prompt: Prompt, start: int) -> KVPiece | None:
        """`None`: KV stays in vLLM."""
        return None

    async def import_kv(self, prompt: Prompt, piece: KVPiece) -> int:
        """0: vLLM takes no KV."""
        return 0

    async def kv_snapshot(self) -> KVEventBatch:
        """All named prefixes that are cached."""
        self._require_alive()
        return await self._loop.call(self._core.index.events.snapshot)

    async def take_kv_events(self) -> KVEventBatch | None:
        """KV events since the last call; see `Engine.take_kv_events`."""
        self._require_alive()
        return await self._loop.call(self._core.index.events.take)

    def stats(self) -> EngineStats:
        """Counters and state as of the last step; see `Engine.stats`."""
        self._require_alive()
        core, statistics = self._core, self._backend.statistics
        load = core.load
        return EngineStats(
            model=self._config.model_folder,
            epoch=self._epoch,
            dtype=self._backend.dtype,
            context_length=self.context_length,
            kv_capacity=load.kv_capacity,
            kv_used=load.kv_capacity - load.kv_free + load.kv_evictable,
            load=load,
            steps=statistics.steps,
            prompt_tokens=core.prompt_tokens,
            cached_tokens=core.cached_tokens,
            output_tokens=core.output_tokens,
            capabilities=core.capabilities,
            idle_s=time.monotonic() - statistics.stepped_at,
            live=tuple((s.request.run_id, s.request.node) for s in core.live),
            preemptions=statistics.preemptions,
            step_sequences=statistics.step_sequences,
        )

    async def close(self) -> None:
        """End all sequences and vLLM's processes. Idempotent."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._end)

    def _end(self) -> None:
        try:
            self._loop.run(self._core.close())
        finally:
            self._loop.end()

    async def _start(self, start: Callable[[VllmConfig], Backend]) -> None:
        """Start vLLM, in the engine's loop, which has nothing else to do yet."""
        self._backend = start(self._config)
        self._core = VllmCore(self._backend, self._config, self._epoch)
        try:
            await self._core.warm_up()
        except BaseException:
            await self._core.close()
            raise

    def _require_alive(self) -> None:
        if self._core.failure is not None:
            raise EngineClosedError(str(self._core.failure)) from self._core.failure
