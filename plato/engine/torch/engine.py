"""The built-in engine: `EngineCore` in its own thread, behind the `Engine` protocol."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar, cast

import torch

from plato.engine.capabilities import Capabilities
from plato.engine.errors import EngineClosedError, EngineError
from plato.engine.mailbox import Mailbox
from plato.engine.prompt import Prompt
from plato.engine.protocol import Chunk, EngineStats, GenerateRequest, KVEventBatch, KVPiece
from plato.engine.torch.config import TorchEngineConfig
from plato.engine.torch.core import EngineCore
from plato.engine.torch.load import load_model
from plato.engine.torch.model import use_one_thread
from plato.engine.torch.protocol import Model
from plato.engine.torch.sequence import Sequence

logger = logging.getLogger(__name__)

IDLE_TICK_S = 0.1
"""Interval at which an idle engine checks leases."""
CLOSE_DEADLINE_S = 10.0
CALL_DEADLINE_S = 30.0
"""A prefill step takes seconds on a slow CPU."""

T = TypeVar("T")


class TorchEngine:
    """Any causal language model of transformers, continuously batched on one KV tree."""

    def __init__(
        self,
        config: TorchEngineConfig,
        *,
        load: Callable[[TorchEngineConfig], Model] = load_model,
        core: type[EngineCore] = EngineCore,
    ) -> None:
        """Load the model and start the engine's thread.

        Takes seconds; do not call it in an event loop's thread. `load` and `core` replace the
        model and the loop body. Raises `EngineError` if the model cannot be loaded and
        `ModelNotSupportedError` if it cannot be computed correctly.
        """
        self._config = config
        self._load = load
        self._new_core = core
        self._epoch = uuid.uuid4().hex[:12]
        # Bounded by the live consumers: each adds a few commands.
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._mailboxes: dict[Sequence, Callable[[BaseException], None]] = {}
        """How to fail each live sequence; removed when the sequence ends."""
        self._failure: BaseException | None = None
        self._closing = threading.Event()
        loaded: queue.SimpleQueue[tuple[Model, EngineCore] | BaseException] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, args=(loaded,), name="plato-engine", daemon=True
        )
        self._thread.start()
        outcome = loaded.get()
        if isinstance(outcome, BaseException):
            raise outcome
        self._model, self._core = outcome

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
        """Longest sequence of the model, in tokens."""
        return self._model.context_length

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk]:
        """Decode one sequence; see `Engine.generate`."""
        self._require_alive()
        self._core.check(request)
        mailbox = Mailbox(request.group_s)
        added: list[Sequence] = []

        def add() -> None:
            try:
                sequence = self._core.add(request, sink)
            except Exception as error:
                mailbox.put(error)
                return
            added.append(sequence)
            self._mailboxes[sequence] = mailbox.put

        def sink(item: Chunk | Exception) -> None:
            if isinstance(item, Exception) or item.finish is not None:
                self._mailboxes.pop(added[0], None)
            mailbox.put(item)

        def cancel() -> None:
            self._core.cancel(lambda sequence: sequence in added)

        self._inbox.put(add)
        # If the loop has just ended, the inbox is not read again.
        self._require_alive()
        finished = False
        try:
            yield Chunk(
                run_id=request.run_id,
                node=request.node,
                attempt=request.attempt,
                offset=len(request.emitted),
                tokens=(),
                text="",
                prompt_tokens=len(request.prompt),
                replica=self._config.name,
                epoch=self._epoch,
                load=self._core.load,
            )
            while not finished:
                chunk = await mailbox.get()
                finished = chunk.finish is not None
                yield chunk
        finally:
            if not finished:
                self._inbox.put(cancel)

    def renew(self, owner: str, ttl_s: float) -> None:
        """Extend the lease of all sequences of `owner` to `ttl_s` seconds from now."""
        self._inbox.put(lambda: self._core.renew(owner, ttl_s))

    def cancel(self, run_id: str, node: int | None = None) -> None:
        """Cancel a run's sequences, or one node's."""
        self._inbox.put(
            lambda: self._core.cancel(
                lambda s: s.request.run_id == run_id and node in (None, s.request.node)
            )
        )

    def cached_prefix(self, prompt: Prompt) -> int:
        """Leading tokens of `prompt` that are cached: a hint, as the tree may change meanwhile."""
        return self._core.cached_prefix(prompt)

    def pin(self, run_id: str, prompt: Prompt, distance: int) -> None:
        """Pin the cached part of `prompt`; see `Engine.pin`."""
        self._inbox.put(lambda: self._core.pin(run_id, prompt, distance))

    def release(self, run_id: str) -> None:
        """Drop all pins of a run."""
        self._inbox.put(lambda: self._core.release(run_id))

    async def export_kv(self, prompt: Prompt, start: int) -> KVPiece | None:
        """KV of the cached part of `prompt`; see `Engine.export_kv`."""
        return await self._call(lambda: self._core.export_kv(prompt, start))

    async def import_kv(self, prompt: Prompt, piece: KVPiece) -> int:
        """Store KV that another engine has computed; see `Engine.import_kv`."""
        return await self._call(lambda: self._core.import_kv(prompt, piece))

    async def kv_snapshot(self) -> KVEventBatch:
        """All named prefixes that are cached."""
        return await self._call(self._core.tree.kv_events.snapshot)

    async def take_kv_events(self) -> KVEventBatch | None:
        """KV events since the last call; see `Engine.take_kv_events`."""
        return await self._call(self._core.tree.kv_events.take)

    def stats(self) -> EngineStats:
        """Counters and state as of the last step; see `Engine.stats`."""
        self._require_alive()
        core = self._core
        return EngineStats(
            model=self._config.model_folder,
            epoch=self._epoch,
            dtype=self._model.precision,
            context_length=self._model.context_length,
            kv_capacity=core.pool.capacity,
            kv_used=core.pool.capacity - core.pool.free_count,
            load=core.load,
            steps=core.steps,
            prompt_tokens=core.prompt_tokens,
            cached_tokens=core.cached_tokens,
            output_tokens=core.output_tokens,
            idle_s=time.monotonic() - core.stepped_at,
            live=core.live,
            preemptions=core.preemptions,
            evicted_tokens=core.tree.evicted,
            imported_tokens=core.imported_tokens,
            recomputed_tokens=core.recomputed_tokens,
            step_sequences=core.step_sequences,
            busy_s=core.busy_s,
            kv_bytes_per_token=self._model.kv_bytes_per_token,
            capabilities=self.capabilities,
        )

    async def inspect(self, look: Callable[[EngineCore], T]) -> T:
        """Run `look` in the engine's thread, between two steps, for tests."""
        return await self._call(lambda: look(self._core))

    async def close(self) -> None:
        """Cancel all sequences and stop the thread. Idempotent."""
        self._closing.set()
        self._inbox.put(lambda: None)
        await asyncio.to_thread(self._thread.join, CLOSE_DEADLINE_S)

    async def _call(self, function: Callable[[], T]) -> T:
        """Run `function` in the engine's thread, between two steps."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: Exception | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(cast(T, result))

        def call() -> None:
            result: T | None = None
            failure: Exception | None = None
            try:
                result = function()
            except Exception as error:
                failure = error
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result, failure)

        self._require_alive()
        self._inbox.put(call)
        # If the loop has just ended, the inbox is not read again.
        self._require_alive()
        async with asyncio.timeout(CALL_DEADLINE_S):
            return await future

    def _require_alive(self) -> None:
        if self._failure is not None:
            raise EngineClosedError(f"the engine has failed: {self._failure}") from self._failure
        if self._closing.is_set():
            raise EngineClosedError("the engine is shutting down")

    def _run(self, loaded: queue.SimpleQueue[tuple[Model, EngineCore] | BaseException]) -> None:
        """Load the model and compute, both in this thread.

        OpenMP, which torch computes with, keeps a thread pool for every thread that computes. With
        a second pool, from loading in another thread, it sees more threads than cores and lets
        them sleep between operations: a step of 36 ms took 65 to 100 ms.
        """
        if self._config.threads is not None:
            torch.set_num_threads(self._config.threads)
        try:
            model = self._load(self._config)
            core = self._new_core(model, self._config, self._epoch)
            if core.has_own_threads:
                use_one_thread()
        except BaseException as error:
            # The constructor is waiting, whatever the error is.
            loaded.put(error)
            return
        self._core = core
        loaded.put((model, core))
        self._loop()

    def _loop(self) -> None:
        try:
            while not self._closing.is_set():
                self._drain()
                self._core.expire()
                if self._core.has_work:
                    self._core.step()
        except Exception as error:
            logger.exception("the engine's loop has failed")
            self._failure = error
        self._drain_closed()

    def _drain(self) -> None:
        """Run the commands in the inbox; wait a tick for one if there is no other work."""
        try:
            self._inbox.get(block=not self._core.has_work, timeout=IDLE_TICK_S)()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            pass

    def _drain_closed(self) -> None:
        """Fail all live sequences and pending calls, after the loop has ended."""
        error: EngineError = EngineClosedError("the engine is shutting down")
        if self._failure is not None:
            error = EngineClosedError(f"the engine has failed: {self._failure}")
        with contextlib.suppress(queue.Empty):
            while True:
                command = self._inbox.get_nowait()
                try:
                    command()
                except Exception:
                    # A core that failed within a step may be inconsistent; consumers still have
                    # to get the error.
                    logger.exception("a command failed after the engine's loop has ended")
        for fail in list(self._mailboxes.values()):
            fail(error)
        self._mailboxes.clear()
