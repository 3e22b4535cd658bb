"""The built-in engine: `EngineCore` in a thread of its own, behind the `Engine` protocol."""

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

from plato.engine.errors import EngineClosedError, EngineError
from plato.engine.prompt import Prompt
from plato.engine.protocol import Chunk, EngineStats, GenerateRequest, HoldingsChange, KVPiece
from plato.engine.torch.config import TorchEngineConfig
from plato.engine.torch.core import EngineCore
from plato.engine.torch.mailbox import Mailbox
from plato.engine.torch.model import LanguageModel, leave_threads
from plato.engine.torch.paced import Model, PacedModel
from plato.engine.torch.sequence import Sequence

logger = logging.getLogger(__name__)

IDLE_TICK_S = 0.1
"""How often an idle engine looks for expired leases."""
CLOSE_DEADLINE_S = 10.0
ASK_DEADLINE_S = 30.0
"""A step of a long prompt takes seconds on a slow CPU."""

T = TypeVar("T")


class TorchEngine:
    """Any causal language model of transformers, continuously batched on one KV tree."""

    def __init__(self, config: TorchEngineConfig) -> None:
        """Load the model and start computing.

        Takes seconds; call it outside of an event loop's thread. Raises `EngineError` if the
        model cannot be loaded and `ModelNotSupportedError` if it cannot be computed correctly.
        """
        self._config = config
        self._epoch = uuid.uuid4().hex[:12]
        # Bounded by the live consumers: each adds a few commands in its life.
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._mailboxes: dict[Sequence, Callable[[BaseException], None]] = {}
        """How to fail each live sequence; an entry goes when its sequence ends."""
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
        """Random name of this life of the engine."""
        return self._epoch

    @property
    def context_length(self) -> int:
        """Positions that the model can tell apart."""
        return self._model.context_length

    @property
    def core(self) -> EngineCore:
        """The loop body, for tests of an idle engine."""
        return self._core

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
        # The loop may have ended just before; nobody would have looked into the inbox again.
        self._require_alive()
        finished = False
        try:
            yield Chunk(
                run=request.run,
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
        """Extend the lease of every sequence that `owner` consumes to `ttl_s` from now."""
        self._inbox.put(lambda: self._core.renew(owner, ttl_s))

    def cancel(self, run: str, node: int | None = None) -> None:
        """Cancel a run's sequences, or one node's."""
        self._inbox.put(
            lambda: self._core.cancel(
                lambda s: s.request.run == run and node in (None, s.request.node)
            )
        )

    def cached_prefix(self, prompt: Prompt) -> int:
        """Leading tokens of `prompt` whose KV is here: a hint, read while the tree may change."""
        return self._core.cached_prefix(prompt)

    def pin(self, run: str, prompt: Prompt, distance: int) -> None:
        """Keep what is here of `prompt` from eviction for a while; see `Engine.pin`."""
        self._inbox.put(lambda: self._core.pin(run, prompt, distance))

    def release(self, run: str) -> None:
        """Drop all pins of a run."""
        self._inbox.put(lambda: self._core.release(run))

    async def export_kv(self, prompt: Prompt, start: int) -> KVPiece | None:
        """KV of what is here of `prompt`; see `Engine.export_kv`."""
        return await self._ask(lambda: self._core.export_kv(prompt, start))

    async def import_kv(self, prompt: Prompt, piece: KVPiece) -> int:
        """Take KV that another engine has computed; see `Engine.import_kv`."""
        return await self._ask(lambda: self._core.import_kv(prompt, piece))

    async def holdings(self) -> HoldingsChange:
        """Every named prefix that is here."""
        return await self._ask(self._core.tree.holdings.snapshot)

    async def take_holdings_change(self) -> HoldingsChange | None:
        """What has changed since the last call; see `Engine.take_holdings_change`."""
        return await self._ask(self._core.tree.holdings.changes)

    def stats(self) -> EngineStats:
        """Counters and state as of the last step. Raises `EngineClosedError` if it has died."""
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
        )

    async def close(self) -> None:
        """Cancel everything and stop the thread. Idempotent."""
        self._closing.set()
        self._inbox.put(lambda: None)
        await asyncio.to_thread(self._thread.join, CLOSE_DEADLINE_S)

    async def _ask(self, question: Callable[[], T]) -> T:
        """Have the engine's thread answer, between two steps."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: Exception | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(cast(T, result))

        def ask() -> None:
            result: T | None = None
            failure: Exception | None = None
            try:
                result = question()
            except Exception as error:
                failure = error
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result, failure)

        self._require_alive()
        self._inbox.put(ask)
        # The loop may have ended just before; nobody would have looked into the inbox again.
        self._require_alive()
        async with asyncio.timeout(ASK_DEADLINE_S):
            return await answer

    def _require_alive(self) -> None:
        if self._failure is not None:
            raise EngineClosedError(f"the engine has died: {self._failure}") from self._failure
        if self._closing.is_set():
            raise EngineClosedError("the engine is shutting down")

    def _run(self, loaded: queue.SimpleQueue[tuple[Model, EngineCore] | BaseException]) -> None:
        """Load and compute, both in this thread.

        OpenMP, which torch computes with, keeps a pool of threads for every thread that computes.
        With a second pool, from loading elsewhere, it counts more threads than cores and puts them
        to sleep between any two operations: measured, a step of 36 ms took 65 to 100 ms.
        """
        if self._config.threads is not None:
            torch.set_num_threads(self._config.threads)
        try:
            paced = self._config.pace is not None
            model: Model = PacedModel(self._config) if paced else LanguageModel(self._config)
            core = EngineCore(model, self._config, self._epoch)
            if core.has_own_threads:
                leave_threads()
        except BaseException as error:
            # Whatever it is, the constructor waits for it.
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
            logger.exception("the engine's loop has died")
            self._failure = error
        self._drain_closed()

    def _drain(self) -> None:
        """Run the commands that have come in; wait a tick for one when there is no work."""
        try:
            self._inbox.get(block=not self._core.has_work, timeout=IDLE_TICK_S)()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            pass

    def _drain_closed(self) -> None:
        """Fail whatever is still waiting, after the loop has ended."""
        error: EngineError = EngineClosedError("the engine is shutting down")
        if self._failure is not None:
            error = EngineClosedError(f"the engine has died: {self._failure}")
        with contextlib.suppress(queue.Empty):
            while True:
                command = self._inbox.get_nowait()
                try:
                    command()
                except Exception:
                    # A core that died in mid-step may not bear it; consumers must hear of it.
                    logger.exception("a command to an engine that has ended failed")
        for fail in list(self._mailboxes.values()):
            fail(error)
        self._mailboxes.clear()
