"""Decoders in simulated time, with measured step times."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from benchmarks.simulation.virtual_time import Station
from plato.engine import (
    Chunk,
    FinishReason,
    GenerateRequest,
    KVEventBatch,
    Load,
    Prompt,
    Replica,
    Segment,
)
from plato.engine.step_times import StepCurve
from plato.testing.paced import Pace, step_seconds

GROUP = 8
"""Tokens of one simulated chunk: it is charged as the messages that it stands for."""
WORD = 200


@dataclass(eq=False, slots=True)
class _Sequence:
    request: GenerateRequest
    prefill: int
    cached: int
    remaining: int
    news: asyncio.Event = field(default_factory=asyncio.Event)
    ready: int = 0
    """Tokens that wait to be sent."""


class SimulatedDecoder:
    """Continuous batching by the numbers: widths, chunked prefill, an LRU cache of prefixes."""

    def __init__(self, name: str, pace: Pace, kv_tokens: int, width: int, chunk: int) -> None:
        self.name = name
        self._pace = pace
        self._kv_tokens = kv_tokens
        self._width = width
        self._curve = StepCurve(tuple((width, ms / 1e3) for width, ms in pace.step_ms))
        self._chunk = chunk
        self._held: OrderedDict[bytes, int] = OrderedDict()
        """Chain -> tokens of its last segment."""
        self._held_tokens = 0
        self._running: list[_Sequence] = []
        self._waiting: list[_Sequence] = []
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.prompt_tokens = 0
        self.cached_tokens = 0

    @property
    def load(self) -> Load:
        """As a real engine tells it."""
        everyone = (*self._running, *self._waiting)
        needed = sum(len(one.request.prompt) for one in self._running)
        free = max(0, self._kv_tokens - needed)
        return Load(
            running=len(self._running),
            waiting=len(self._waiting),
            prefill_tokens=sum(one.prefill for one in everyone),
            kv_free=free,
            # What running sequences hold is held, too.
            kv_evictable=min(free, max(0, self._held_tokens - needed)),
            places=self._width,
            runs=len({one.request.run_id for one in everyone}),
            step_times=self._curve,
            prefill_s=1 / self._pace.prefill_tokens_per_s,
            kv_capacity=self._kv_tokens,
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[tuple[Chunk, int]]:
        """Chunks, each with the number of messages that it stands for."""
        cached = self._cached(request.prompt)
        prompt = len(request.prompt)
        sequence = _Sequence(request, prompt - cached, cached, request.max_tokens)
        self.prompt_tokens += prompt
        self.cached_tokens += cached
        self._waiting.append(sequence)
        self._arrived.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"sim-{self.name}")
        sent = 0
        try:
            yield self._piece(sequence, 0, 0), 1
            while sent < request.max_tokens:
                await sequence.news.wait()
                sequence.news.clear()
                count, sequence.ready = sequence.ready, 0
                if count:
                    yield self._piece(sequence, sent, count), count
                    sent += count
        finally:
            for queue in (self._running, self._waiting):
                if sequence in queue:
                    queue.remove(sequence)

    def _piece(self, sequence: _Sequence, offset: int, count: int) -> Chunk:
        request = sequence.request
        last = offset + count == request.max_tokens
        return Chunk(
            request.run_id,
            request.node,
            request.attempt,
            offset,
            (WORD,) * count,
            "." * count,
            finish=FinishReason.LENGTH if last and count else None,
            prompt_tokens=len(request.prompt),
            cached_tokens=sequence.cached,
            replica=self.name,
            epoch="simulated",
            load=self.load,
        )

    async def _run(self) -> None:
        while self._running or self._waiting:
            while self._waiting and len(self._running) < self._width:
                self._running.append(self._waiting.pop(0))
            self._arrived.clear()
            filling = [one for one in self._running if one.prefill]
            decoding = [one for one in self._running if not one.prefill]
            if filling:
                budget, filled = self._chunk, 0
                for one in filling:
                    part = min(one.prefill, budget)
                    one.prefill -= part
                    budget -= part
                    filled += part
                await asyncio.sleep(step_seconds(self._pace, len(decoding), filled))
                for one in filling:
                    if not one.prefill:
                        self._hold(one.request.prompt)
                        self._advance(one, 1)
                for one in decoding:
                    self._advance(one, 1)
                continue
            # Nothing changes until somebody has a group together, ends or comes.
            steps = min(min(one.remaining, GROUP) for one in decoding)
            step_s = step_seconds(self._pace, len(decoding), 0)
            began = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(steps * step_s):
                    await self._arrived.wait()
                took = asyncio.get_running_loop().time() - began
                steps = min(steps, int(took / step_s) + 1)
                await asyncio.sleep(max(0.0, steps * step_s - took))
            except TimeoutError:
                pass
            for one in decoding:
                self._advance(one, steps)

    def _advance(self, sequence: _Sequence, steps: int) -> None:
        steps = min(steps, sequence.remaining)
        sequence.remaining -= steps
        sequence.ready += steps
        sequence.news.set()
        if not sequence.remaining and sequence in self._running:
            self._running.remove(sequence)
            output = Segment((WORD,) * sequence.request.max_tokens)
            self._hold(sequence.request.prompt.extended(output))

    def _cached(self, prompt: Prompt) -> int:
        length = known = 0
        for chain, segment in zip(prompt.hashes, prompt.segments, strict=True):
            length += len(segment.tokens)
            if chain in self._held:
                known = length
        return min(known, len(prompt) - 1)

    def _hold(self, prompt: Prompt) -> None:
        # Ends first, so that the beginning of a prompt is what goes last.
        for chain, segment in reversed(tuple(zip(prompt.hashes, prompt.segments, strict=True))):
            if chain not in self._held:
                self._held_tokens += len(segment.tokens)
            self._held[chain] = len(segment.tokens)
            self._held.move_to_end(chain)
        while self._held_tokens > self._kv_tokens:
            _, tokens = self._held.popitem(last=False)
            self._held_tokens -= tokens


class SimulatedPool:
    """One scheduler's view of the decoders; messages cost the scheduler's time."""

    remote = False

    def __init__(
        self,
        decoders: dict[str, SimulatedDecoder],
        scheduler: Station,
        *,
        call_s: float,
        message_s: float,
    ) -> None:
        """A dispatch costs the scheduler `call_s`, every message from a decoder `message_s`."""
        self._decoders = decoders
        self._replicas = tuple(Replica(name) for name in decoders)
        self._scheduler = scheduler
        self._call_s = call_s
        self._message_s = message_s

    def replicas(self) -> tuple[Replica, ...]:
        """All of them, always."""
        return self._replicas

    async def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        """Decode on the first of `ranked`."""
        await self._scheduler.work(self._call_s)
        decoder = self._decoders[ranked[0]]
        stream = decoder.generate(request)
        try:
            async for chunk, messages in stream:
                await self._scheduler.work(messages * self._message_s)
                yield chunk
        finally:
            await stream.aclose()

    async def renew(self, owner: str, ttl_s: float, replica: str) -> None:
        """Leases need no simulation."""

    async def kv_snapshot(self, replica: str) -> tuple[str, KVEventBatch]:
        """What was sent is what is believed."""
        return "simulated", KVEventBatch(1, snapshot=True)

    async def release(self, run_id: str, replica: str) -> None:
        """Nothing is pinned."""
