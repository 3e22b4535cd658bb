"""Faults at the seams, for what no test can provoke otherwise at the moment it wants.

Pools and stores that a test can kill, hang, slow down and make lose messages, around real ones.
They are in no package that is installed, so nothing of this can be reached in production.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from plato.context import ContextStore
from plato.engine import Chunk, Engine, GenerateRequest, KVEventBatch, Replica
from plato.errors import UnavailableError


class ReplicaDiedError(Exception):
    """What a stream raises whose other end has died."""


@dataclass
class Switch:
    """What is wrong with one replica."""

    dead: bool = False
    running: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: it hangs."""
    slow_s: float = 0.0
    """Before every chunk."""
    drops: int = 0
    """So many chunks with tokens are lost."""
    lives: int = 0
    died: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.running.set()


class FaultyEngines:
    """Engines of this process as a pool, each with a switch."""

    remote = True

    def __init__(self, engines: dict[str, Engine]) -> None:
        self.engines = engines
        self.switches = {name: Switch() for name in engines}
        self.requests: list[tuple[str, GenerateRequest]] = []
        """(replica, request) of everything that was asked for."""
        self.poison: set[str] = set()
        """Titles or texts are not looked at: (run) ids whose requests kill what decodes them."""

    def kill(self, name: str) -> None:
        """End every stream of a replica, and forget what it was decoding."""
        switch = self.switches[name]
        switch.dead = True
        switch.lives += 1
        for run, node in self.engines[name].stats().live:
            self.engines[name].cancel(run, node)
        died, switch.died = switch.died, asyncio.Event()
        died.set()

    def revive(self, name: str) -> None:
        """Let a new life of it begin."""
        self.switches[name].dead = False

    def hang(self, name: str) -> None:
        """Answer nothing any more."""
        self.switches[name].running.clear()

    def go_on(self, name: str) -> None:
        """Answer again."""
        self.switches[name].running.set()

    def replicas(self) -> tuple[Replica, ...]:
        """Those that are not known to be dead."""
        return tuple(Replica(name) for name, switch in self.switches.items() if not switch.dead)

    async def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        """The engine's chunks, as far as the switch lets them through."""
        while True:
            alive = [name for name, switch in self.switches.items() if not switch.dead]
            if alive:
                break
            await asyncio.sleep(0.02)
        name = next((name for name in ranked if name in alive), alive[0])
        self.requests.append((name, request))
        switch = self.switches[name]
        died = switch.died
        if request.run_id in self.poison:
            self.kill(name)
        chunks = self.engines[name].generate(request)
        async with aclosing(chunks):
            while True:
                waits = [
                    asyncio.ensure_future(self._next(chunks, switch)),
                    asyncio.ensure_future(died.wait()),
                ]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    if died.is_set():
                        raise ReplicaDiedError(name)
                    chunk = waits[0].result()
                finally:
                    for wait in waits:
                        wait.cancel()
                    await asyncio.wait(waits)
                if chunk is None:
                    return
                if chunk.tokens and switch.drops:
                    switch.drops -= 1
                    continue
                yield chunk

    @staticmethod
    async def _next(chunks: AsyncGenerator[Chunk], switch: Switch) -> Chunk | None:
        await switch.running.wait()
        if switch.slow_s:
            await asyncio.sleep(switch.slow_s)
        chunk = await anext(chunks, None)
        await switch.running.wait()
        return chunk

    async def renew(self, owner: str, ttl_s: float, replica: str) -> None:
        """Renew, where the replica is there to hear it."""
        switch = self.switches[replica]
        await switch.running.wait()
        if switch.dead:
            raise UnavailableError(f"there is no engine {replica}")
        self.engines[replica].renew(owner, ttl_s)

    async def kv_snapshot(self, replica: str) -> tuple[str, KVEventBatch]:
        """The engine's, if the replica answers."""
        await self.switches[replica].running.wait()
        if self.switches[replica].dead:
            raise UnavailableError(f"there is no engine {replica}")
        engine = self.engines[replica]
        return engine.epoch, await engine.kv_snapshot()

    async def release(self, run_id: str, replica: str) -> None:
        """Drop the pins of a run."""
        if not self.switches[replica].dead:
            self.engines[replica].release(run_id)


class FaultyStore:
    """One process's view of a store that is away at times, and gone when the process is."""

    def __init__(self, store: ContextStore) -> None:
        self._store = store
        self.away = False
        self.mute = False
        """It does what it is asked for, but its answers are lost."""
        self.slow_s = 0.0
        """Before everything that it is asked for."""

    @property
    def available(self) -> bool:
        """Whether it answers."""
        return not (self.away or self.mute)

    def replace(self, store: ContextStore) -> None:
        """From now on it is another one, which knows nothing."""
        self._store = store

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        nothing = _NOTHING[name]

        async def call(*arguments: Any, **keywords: Any) -> Any:
            answer = nothing() if callable(nothing) else nothing
            if self.slow_s:
                await asyncio.sleep(self.slow_s)
            if not self.away:
                heard = await method(*arguments, **keywords)
                answer = answer if self.mute else heard
            return answer

        return call

    async def close(self) -> None:
        """The store itself stays open: others use it."""


_NOTHING: dict[str, Any] = {
    "ping": False,
    "put_run": False,
    "put_node": False,
    "append_kv_events": False,
    "append_events": False,
    "extend": False,
    "get_run": None,
    "acquire": None,
    "release": None,
    "forget": None,
    "get_nodes": dict,
    "read_kv_events": None,
    "read_events": (),
    "orphans": (),
}
"""What the methods of a store return when it is away."""
