"""Decoders in simulated time, with measured step times."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace

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
from plato.engine.mailbox import Mailbox
from plato.engine.step_times import StepCurve
from plato.testing.paced import Pace, step_seconds

WORD = 200


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """What a simulated decoder can do."""

    pace: Pace
    kv_tokens: int
    width: int
    """Sequences that it decodes at a time."""
    chunk: int
    """Prompt tokens that it computes in one step."""
    tick_s: float = 0.1
    """Steps are simulated together until the next multiple of this, the stream interval."""


@dataclass(eq=False, slots=True)
class _Sequence:
    request: GenerateRequest
    prefill: int
    cached: int
    mailbox: Mailbox
    """The engine's own: it groups tokens as a server does."""
    done: int = 0
    """Tokens decoded."""

    @property
    def remaining(self) -> int:
        return self.request.max_tokens - self.done


class SimulatedDecoder:
    """Continuous batching by the numbers: widths, chunked prefill, an LRU cache of prefixes."""

    def __init__(self, name: str, spec: DecoderSpec) -> None:
        self.name = name
        self._spec = spec
        steps = spec.pace.step_ms
        self._curve = StepCurve(tuple((width, ms / 1e3) for width, ms in steps))
        self._held: OrderedDict[bytes, int] = OrderedDict()
        """Chain -> tokens of its last segment."""
        self._held_tokens = 0
        self._running: list[_Sequence] = []
        self._waiting: list[_Sequence] = []
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.output_tokens = 0
        self.chunks = 0
        """Sent so far."""

    @property
    def load(self) -> Load:
        """As a real engine tells it."""
        everyone = (*self._running, *self._waiting)
        needed = sum(len(one.request.prompt) for one in self._running)
        free = max(0, self._spec.kv_tokens - needed)
        return Load(
            running=len(self._running),
            waiting=len(self._waiting),
            prefill_tokens=sum(one.prefill for one in everyone),
            kv_free=free,
            # What running sequences hold is held, too.
            kv_evictable=min(free, max(0, self._held_tokens - needed)),
            places=self._spec.width,
            runs=len({one.request.run_id for one in everyone}),
            step_times=self._curve,
            prefill_s=1 / self._spec.pace.prefill_tokens_per_s,
            kv_capacity=self._spec.kv_tokens,
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk]:
        """The chunks of one sequence, one message each."""
        cached = self._cached(request.prompt)
        prompt = len(request.prompt)
        sequence = _Sequence(request, prompt - cached, cached, Mailbox(request.group_s))
        self.prompt_tokens += prompt
        self.cached_tokens += cached
        self._waiting.append(sequence)
        self._arrived.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"sim-{self.name}")
        try:
            chunk = self._piece(sequence, 0)
            while True:
                self.chunks += 1
                self.output_tokens += len(chunk.tokens)
                yield chunk
                if chunk.finish is not None:
                    return
                chunk = await sequence.mailbox.get()
        finally:
            for queue in (self._running, self._waiting):
                if sequence in queue:
                    queue.remove(sequence)

    def _piece(self, sequence: _Sequence, count: int) -> Chunk:
        """The next tokens of a sequence."""
        request, offset = sequence.request, sequence.done
        return Chunk(
            request.run_id,
            request.node,
            request.attempt,
            offset,
            (WORD,) * count,
            "." * count,
            finish=FinishReason.LENGTH if offset + count == request.max_tokens else None,
            prompt_tokens=len(request.prompt),
            cached_tokens=sequence.cached,
            replica=self.name,
            epoch="simulated",
            load=self.load,
        )

    async def _run(self) -> None:
        while self._running or self._waiting:
            while self._waiting and len(self._running) < self._spec.width:
                self._running.append(self._waiting.pop(0))
            self._arrived.clear()
            filling = [one for one in self._running if one.prefill]
            decoding = [one for one in self._running if not one.prefill]
            if filling:
                budget, filled = self._spec.chunk, 0
                for one in filling:
                    part = min(one.prefill, budget)
                    one.prefill -= part
                    budget -= part
                    filled += part
                await asyncio.sleep(step_seconds(self._spec.pace, len(decoding), filled))
                for one in filling:
                    if not one.prefill:
                        self._hold(one.request.prompt)
                        self._advance(one, 1)
                for one in decoding:
                    self._advance(one, 1)
                continue
            # Nothing is sent until the next tick, unless somebody ends or comes.
            began = asyncio.get_running_loop().time()
            step_s = step_seconds(self._spec.pace, len(decoding), 0)
            to_tick_s = self._spec.tick_s - began % self._spec.tick_s
            steps = min(math.ceil(to_tick_s / step_s), *(one.remaining for one in decoding))
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
        count = min(steps, sequence.remaining)
        sequence.mailbox.put(self._piece(sequence, count))
        sequence.done += count
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
        while self._held_tokens > self._spec.kv_tokens:
            _, tokens = self._held.popitem(last=False)
            self._held_tokens -= tokens


class SimulatedPool:
    """One scheduler's view of the decoders; calls and messages cost the scheduler's time."""

    remote = True

    def __init__(
        self,
        decoders: Mapping[str, SimulatedDecoder],
        scheduler: Station,
        *,
        call_s: float = 0.0,
        node_s: float = 0.0,
        group_s: float = 0.0,
    ) -> None:
        """A call costs the scheduler `call_s`, a node `node_s` besides, a message `group_s`."""
        self._decoders = decoders
        self._replicas = tuple(Replica(name) for name in decoders)
        self._scheduler = scheduler
        self._call_s = call_s
        self._node_s = node_s
        self._group_s = group_s

    def replicas(self) -> tuple[Replica, ...]:
        """All of them, always."""
        return self._replicas

    async def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        """Decode on the first of `ranked`."""
        await self._scheduler.work(self._call_s + self._node_s)
        async with aclosing(self._decoders[ranked[0]].generate(request)) as chunks:
            async for chunk in chunks:
                await self._scheduler.work(self._group_s)
                yield chunk

    async def renew(self, owner: str, ttl_s: float, replica: str) -> None:
        """One call."""
        await self._scheduler.work(self._call_s)

    async def kv_snapshot(self, replica: str) -> tuple[str, KVEventBatch]:
        """What was sent is what is believed."""
        return "simulated", KVEventBatch(1, snapshot=True)

    async def release(self, run_id: str, replica: str) -> None:
        """Nothing is pinned."""


class ReadyPool(SimulatedPool):
    """A decoder that has every token ready, to measure what the scheduler itself does."""

    remote = False

    def __init__(self, group: int) -> None:
        """Send `group` tokens in each chunk."""
        super().__init__({}, Station())
        self._replicas = (Replica("ready"),)
        self._group = group
        self.groups = 0
        """Chunks with tokens, so far."""

    async def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        """All tokens of a sequence, without a wait."""
        sent = Chunk(request.run_id, request.node, request.attempt, 0, (), "", replica="ready")
        yield sent
        for offset in range(0, request.max_tokens, self._group):
            count = min(self._group, request.max_tokens - offset)
            last = offset + count == request.max_tokens
            self.groups += 1
            # The event loop turns between two messages.
            await asyncio.sleep(0)
            yield replace(
                sent,
                offset=offset,
                tokens=(WORD,) * count,
                text="." * count,
                finish=FinishReason.LENGTH if last else None,
            )
