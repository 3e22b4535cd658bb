"""Schedulers that can die, over decoders that can, and a store that can be away."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from plato.assembly import new_planner, new_scheduler
from plato.context import ContextStore, MemoryContextStore
from plato.prompting.model_tools import ModelTools
from plato.runs import RunEvents, RunRequest
from plato.settings import Settings
from tests.faults import FaultyEngines, FaultyStore

if TYPE_CHECKING:
    from plato.tracing.tracing import Tracing

DEADLINE_S = 60.0


class SchedulerDiedError(Exception):
    """What a stream raises whose scheduler has died."""


class Process:
    """A scheduler that can die without a word."""

    def __init__(self, name: str, cluster: Cluster) -> None:
        self.store = FaultyStore(cluster.store)
        self.died = asyncio.Event()
        # Copied, not validated: quicker than what operators may set.
        settings = Settings().model_copy(
            update={
                "node_max_tokens": 40,
                "sequential_max_tokens": 40,
                "max_title_words": 2,
                "equal_work": True,
                "lease_ttl_s": 0.4,
                "silence_s": 0.4,
                "node_attempts": 20,
                "ownership_ttl_s": 0.6,
                "node_deadline_s": DEADLINE_S,
                "run_deadline_s": DEADLINE_S,
            }
        )
        self.scheduler = new_scheduler(
            settings,
            cluster.tools,
            planner=new_planner(settings, cluster.tools, cluster.pool),
            pool=cluster.pool,
            store=self.store,  # type: ignore[arg-type]
            name=name,
            tracing=cluster.tracing,
        )
        self.scheduler.start()

    async def drive(
        self, request: RunRequest, received: RunEvents | None
    ) -> AsyncGenerator[RunEvents]:
        """The scheduler's events, until it dies."""
        batches = self.scheduler.run(request, received)
        async with aclosing(batches):
            while True:
                waits = [
                    asyncio.ensure_future(anext(batches, None)),
                    asyncio.ensure_future(self.died.wait()),
                ]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    if self.died.is_set():
                        raise SchedulerDiedError
                    batch = waits[0].result()
                finally:
                    for wait in waits:
                        wait.cancel()
                    await asyncio.wait(waits)
                if batch is None:
                    return
                yield batch

    async def kill(self) -> None:
        """Die: nothing is written any more, and nobody hears of it but by the silence."""
        self.store.away = True
        self.died.set()
        await self.scheduler.close()


@dataclass
class Cluster:
    """Three decoders, two schedulers and a store, and what has happened to them."""

    pool: FaultyEngines
    tools: ModelTools
    store: ContextStore = field(default_factory=MemoryContextStore)
    tracing: Tracing | None = None
    """Of the schedulers that start from now on."""
    schedulers: list[Process] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)

    def drive(self, request: RunRequest, received: RunEvents | None) -> AsyncGenerator[RunEvents]:
        """Have any scheduler drive a run."""
        return random.choice(self.schedulers).drive(request, received)

    async def disturb(self, chance: random.Random) -> None:
        """One fault, or the end of one."""
        name = chance.choice(list(self.pool.switches))
        switch = self.pool.switches[name]
        faults: dict[str, Callable[[], object]] = {
            "kill": lambda: self.pool.kill(name),
            "hang": lambda: self.pool.hang(name),
            "slow": lambda: setattr(switch, "slow_s", 0.01),
            "drop": lambda: setattr(switch, "drops", 1),
            "store away": lambda: setattr(self.schedulers[0].store, "away", True),
            "scheduler": lambda: None,
        }
        fault = chance.choice(list(faults))
        self.happened[fault] += 1
        faults[fault]()
        if fault == "scheduler":
            index = chance.randrange(len(self.schedulers))
            dead = self.schedulers[index]
            self.schedulers[index] = Process(f"scheduler-{index}", self)
            await dead.kill()
        await asyncio.sleep(chance.uniform(0.0, 0.15))
        if chance.random() < 0.7:
            self.mend()

    def mend(self) -> None:
        """Let everything be well again."""
        for name, switch in self.pool.switches.items():
            self.pool.revive(name)
            self.pool.go_on(name)
            switch.slow_s, switch.drops = 0.0, 0
        for process in self.schedulers:
            process.store.away = False
