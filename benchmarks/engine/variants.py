"""The built-in engine without one of its features, to measure the gain of the feature.

The functions are engine factories, for `Settings.engine` by their import path.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

from plato.assembly import engine_config
from plato.engine import (
    Chunk,
    Engine,
    EngineStats,
    GenerateRequest,
    KVEventBatch,
    KVPiece,
    Prompt,
    Segment,
)
from plato.engine.capabilities import BUILT_IN, Capabilities
from plato.engine.sampling.matcher import Matcher
from plato.engine.torch import TorchEngine
from plato.engine.torch.core import EngineCore
from plato.settings import Settings


def engine_without_reuse(settings: Settings, folder: str, name: str) -> Engine:
    """An engine that computes every prompt from its start."""
    return UnsharedEngine(TorchEngine(engine_config(settings, folder, name)))


def engine_without_forced_tokens(settings: Settings, folder: str, name: str) -> Engine:
    """An engine that decodes the tokens that a grammar leaves no choice about."""
    return TorchEngine(engine_config(settings, folder, name), core=StepwiseCore)


class StepwiseCore(EngineCore):
    """Takes a step for every token."""

    capabilities = replace(BUILT_IN, forced_tokens=False)

    def forced_tokens(self, matcher: Matcher) -> list[int]:
        """None."""
        return []


class UnsharedEngine:
    """An engine that gives every request's prompt a tenant of its own, so nothing is shared."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._prompts = 0

    @property
    def epoch(self) -> str:
        """See `Engine.epoch`."""
        return self._engine.epoch

    @property
    def capabilities(self) -> Capabilities:
        """See `Engine.capabilities`."""
        return replace(self._engine.capabilities, prefix_granularity=0)

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk]:
        """Decode one sequence with an unshared prompt; see `Engine.generate`."""
        return self._engine.generate(replace(request, prompt=self._unshared(request.prompt)))

    def renew(self, owner: str, ttl_s: float) -> None:
        """See `Engine.renew`."""
        self._engine.renew(owner, ttl_s)

    def cancel(self, run_id: str, node: int | None = None) -> None:
        """See `Engine.cancel`."""
        self._engine.cancel(run_id, node)

    def cached_prefix(self, prompt: Prompt) -> int:
        """See `Engine.cached_prefix`."""
        return self._engine.cached_prefix(prompt)

    def pin(self, run_id: str, prompt: Prompt, distance: int) -> None:
        """See `Engine.pin`."""
        self._engine.pin(run_id, prompt, distance)

    def release(self, run_id: str) -> None:
        """See `Engine.release`."""
        self._engine.release(run_id)

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        return replace(self._engine.stats(), capabilities=self.capabilities)

    async def export_kv(self, prompt: Prompt, start: int) -> KVPiece | None:
        """See `Engine.export_kv`."""
        return await self._engine.export_kv(prompt, start)

    async def import_kv(self, prompt: Prompt, piece: KVPiece) -> int:
        """See `Engine.import_kv`."""
        return await self._engine.import_kv(prompt, piece)

    async def kv_snapshot(self) -> KVEventBatch:
        """See `Engine.kv_snapshot`."""
        return await self._engine.kv_snapshot()

    async def take_kv_events(self) -> KVEventBatch | None:
        """See `Engine.take_kv_events`."""
        return await self._engine.take_kv_events()

    async def close(self) -> None:
        """See `Engine.close`."""
        await self._engine.close()

    def _unshared(self, prompt: Prompt) -> Prompt:
        self._prompts += 1
        segments = tuple(Segment(segment.tokens) for segment in prompt.segments)
        return Prompt(segments, f"{prompt.tenant}#{self._prompts}")
