"""What the control path costs: processor time of calls, messages, nodes and groups of tokens.

A *group* is what one decoder has decoded of one node in one stream interval: one message from the
decoder to the scheduler, and one event of the run. All times are of the whole process, every thread
of Ray and Python included, as if it had one core. Those of messages are of processes that are busy,
which decides how many they can carry; where only a few come, each takes up to twice as long.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from benchmarks.common.closed_loop import Load, new_request
from benchmarks.common.workload import fixed_graphs
from benchmarks.simulation.pool import ReadyPool
from benchmarks.simulation.scheduler import new_scheduler
from plato.context import MemoryContextStore
from plato.context.embedded import EmbeddedValkey
from plato.context.redis import RedisContextStore
from plato.engine import Chunk
from plato.engine import Load as EngineLoad
from plato.engine.step_times import StepCurve
from plato.prompting.model_tools import ModelTools
from plato.runs import EventId
from plato.settings import Settings

STREAMS = 64
"""Received at a time."""
MESSAGES = 60
"""Of each stream."""
CALLS = 200
WRITES = 500
CHUNK = Chunk(
    "run-0123456789abcdef0123456789abcdef",
    node=3,
    attempt=0,
    offset=48,
    tokens=(1042, 553, 2210),
    text=" of three words",
    prompt_tokens=300,
    cached_tokens=250,
    replica="abcdefgh",
    epoch="0123456789ab",
    load=EngineLoad(
        running=8,
        prefill_tokens=300,
        kv_free=20_000,
        kv_evictable=10_000,
        kv_capacity=40_000,
        places=16,
        runs=3,
        step_times=StepCurve(((1, 0.007), (2.4, 0.008), (5.1, 0.011), (8.0, 0.013))),
        prefill_s=0.0008,
    ),
    steps=50,
)
GROUPS = (1, 16)
"""Tokens of a group, in the two plays that tell the costs of nodes and of groups apart."""
PLAYS = 3


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of processor time of one process."""

    call_s: float
    """Of a streaming handle call without messages, at the caller."""
    send_s: float
    """Of a streamed message, at its sender."""
    receive_s: float
    """Of a streamed message, at its receiver."""
    node_s: float
    """The scheduler's own work for a node: prompt, placement, bookkeeping; with its share of the
    run."""
    group_s: float
    """The scheduler's own work for a group: state, composed text, journal, followers."""
    write_s: float
    """Of a write to the context store, at the scheduler."""


def measure_costs(tools: ModelTools) -> Costs:
    """Measure all of them; Ray must be running."""
    node_s, group_s = measure_scheduler(tools)
    return Costs(*asyncio.run(measure_messages()), node_s, group_s, asyncio.run(measure_write()))


def measure_scheduler(tools: ModelTools) -> tuple[float, float]:
    """Seconds of the scheduler's own work for a node and for a group."""
    graphs = fixed_graphs()
    nodes = sum(len(graph.nodes) for graph in graphs)

    async def play(group: int, name: str) -> tuple[float, int]:
        """Processor time of all graphs, and the groups that they came in."""
        pool = ReadyPool(group)
        scheduler = new_scheduler(tools, pool, Settings(), MemoryContextStore())
        load = Load(len(graphs))
        began = time.process_time()
        for number, graph in enumerate(graphs):
            request = new_request(graph, f"{name}-{number}", load)
            async with aclosing(scheduler.run(request)) as batches:
                async for _ in batches:
                    pass
        spent = time.process_time() - began
        await scheduler.close()
        return spent, pool.groups

    def fastest(group: int) -> tuple[float, int]:
        return min(asyncio.run(play(group, f"cost-{group}-{again}")) for again in range(PLAYS))

    (fine_s, many), (coarse_s, few) = (fastest(group) for group in GROUPS)
    group_s = (fine_s - coarse_s) / (many - few)
    return (coarse_s - few * group_s) / nodes, group_s


async def measure_write() -> float:
    """Seconds of a write of a run's events to a store in another process."""
    run, tenant, events = "run", "tenant", bytes(500)
    with EmbeddedValkey() as server:
        store = RedisContextStore(server.url)
        fence = await store.acquire(tenant, run, "owner", ttl_s=60.0)
        if fence is None:
            raise RuntimeError("the embedded context store does not answer")
        began = time.process_time()
        for number in range(WRITES):
            await store.append_events(tenant, run, EventId(1, number), fence, events)
        spent = time.process_time() - began
        await store.close()
    return spent / WRITES


async def measure_messages() -> tuple[float, float, float]:
    """Seconds of a call at the caller, and of a message at its sender and its receiver."""
    from ray import serve

    from benchmarks.simulation.echo import Echo

    name = "message-costs"
    echo: Any = Echo
    handle: Any = await asyncio.to_thread(serve.run, echo.bind(), name=name, route_prefix=None)
    streaming = handle.options(stream=True)

    async def receive(count: int) -> None:
        async for _ in streaming.repeat.remote(CHUNK, count):
            pass

    async def measure(streams: int, count: int) -> tuple[float, float]:
        """Processor time here and there of so many streams at a time."""
        there_s, here_s = await handle.cpu_s.remote(), time.process_time()
        await asyncio.gather(*(receive(count) for _ in range(streams)))
        here_s = time.process_time() - here_s
        return here_s, await handle.cpu_s.remote() - there_s

    try:
        await measure(STREAMS, 1)
        call_s, _ = await measure(CALLS, 0)
        received_s, sent_s = await measure(STREAMS, MESSAGES)
    finally:
        await asyncio.to_thread(serve.delete, name)
    messages = STREAMS * MESSAGES
    received_s -= STREAMS * call_s / CALLS
    return call_s / CALLS, sent_s / messages, received_s / messages
