"""A service in simulated time: real schedulers over simulated decoders, and what they cost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.common.closed_loop import Figures, Load, closed_loop
from benchmarks.simulation.costs import Costs
from benchmarks.simulation.pool import DecoderSpec, SimulatedDecoder, SimulatedPool
from benchmarks.simulation.scheduler import new_scheduler
from benchmarks.simulation.virtual_time import Station, run_virtual
from plato.context import MemoryContextStore, NodeRecord, RunRecord
from plato.prompting.model_tools import ModelTools
from plato.runs import EventId, RunEvents, RunRequest
from plato.settings import Settings


class _ChargedStore(MemoryContextStore):
    """A store whose writes cost the scheduler's time."""

    def __init__(self, scheduler: Station, write_s: float) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._write_s = write_s

    async def put_run(self, record: RunRecord) -> bool:
        """Write a run."""
        await self._scheduler.work(self._write_s)
        return await super().put_run(record)

    async def put_node(self, record: NodeRecord, fence: int) -> bool:
        """Write a finished node."""
        await self._scheduler.work(self._write_s)
        return await super().put_node(record, fence)

    async def append_events(
        self,
        tenant: str,
        run_id: str,
        last: EventId,
        fence: int,
        events: bytes,
        *,
        after: EventId | None = None,
    ) -> bool:
        """Append to the log of a run."""
        await self._scheduler.work(self._write_s)
        return await super().append_events(tenant, run_id, last, fence, events, after=after)


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a load on a simulated service came to."""

    figures: Figures
    cached_share: float
    """Of all prompt tokens."""
    scheduler_busy: float
    """Share of its time that the busiest scheduler worked."""
    ingress_busy: float
    scheduler_us_per_token: float
    """Processor time of all schedulers for each answer token."""
    messages_per_token: float
    """Messages that schedulers received from decoders and sent to ingresses."""

    def row(self) -> dict[str, Any]:
        """The fields of a report's row."""
        others = asdict(self)
        return asdict(self.figures) | {k: v for k, v in others.items() if k != "figures"}


@dataclass(frozen=True, slots=True)
class Service:
    """Replicas of a simulated service; it has an ingress for every scheduler."""

    decoders: int
    schedulers: int
    decoder: DecoderSpec
    settings: Settings
    costs: Costs

    def answer(self, tools: ModelTools, load: Load) -> Simulated:
        """Simulate a load."""
        return run_virtual(self._answer(tools, load))

    async def _answer(self, tools: ModelTools, load: Load) -> Simulated:
        costs = self.costs
        decoders = {
            name: SimulatedDecoder(name, self.decoder)
            for name in (f"r{number}" for number in range(self.decoders))
        }
        stations = [Station() for _ in range(self.schedulers)]
        ingresses = [Station() for _ in range(self.schedulers)]
        schedulers = [
            new_scheduler(
                tools,
                SimulatedPool(
                    decoders,
                    station,
                    call_s=costs.call_s,
                    node_s=costs.node_s,
                    group_s=costs.receive_s + costs.group_s,
                ),
                self.settings,
                _ChargedStore(station, costs.write_s),
            )
            for station in stations
        ]
        chance, sent = random.Random(1), 0

        async def drive(request: RunRequest) -> AsyncGenerator[RunEvents]:
            nonlocal sent
            place = chance.randrange(self.schedulers)
            await ingresses[place].work(costs.call_s)
            async with aclosing(schedulers[place].run(request)) as batches:
                async for batch in batches:
                    sent += 1
                    await stations[place].work(costs.send_s)
                    await ingresses[place].work(costs.receive_s)
                    yield batch

        began_s = asyncio.get_running_loop().time()
        figures = await closed_loop(drive, load)
        spent_s = asyncio.get_running_loop().time() - began_s
        for scheduler in schedulers:
            await scheduler.close()
        all_decoders = decoders.values()
        tokens = sum(one.output_tokens for one in all_decoders)
        return Simulated(
            figures,
            cached_share=sum(one.cached_tokens for one in all_decoders)
            / max(1, sum(one.prompt_tokens for one in all_decoders)),
            scheduler_busy=max(one.busy_s for one in stations) / spent_s,
            ingress_busy=max(one.busy_s for one in ingresses) / spent_s,
            scheduler_us_per_token=1e6 * sum(one.busy_s for one in stations) / tokens,
            messages_per_token=(sent + sum(one.chunks for one in all_decoders)) / tokens,
        )
