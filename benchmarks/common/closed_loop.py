"""A closed loop of runs with fixed plans: so many questions are always being answered.

The same loop loads a service and its simulation, each on its event loop's clock.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from benchmarks.common.statistics import percentile
from benchmarks.common.workload import FixedGraph, fixed_graphs
from plato.engine import SamplingParams
from plato.runs import Message, Mode, NodeOutput, RunEvents, RunFailed, RunFinished, RunRequest
from plato.settings import MAX_NODES

Drive = Callable[[RunRequest], AsyncGenerator[RunEvents]]
"""Has a run answered; yields its events in batches."""


@dataclass(frozen=True, slots=True)
class Load:
    """How many questions at a time, and for how long."""

    questions: int
    warm_up_s: float = 6.0
    measured_s: float = 10.0
    scale: float = 0.5
    """Of the workload's lengths: a measurement should hold many questions."""
    deadline_s: float = 1e6
    """Of a run."""
    name: str = ""
    """Tells the tenants of one measurement from those of others: their prefixes are their own."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was answered between the end of the warm-up and the end of the load."""

    tokens_per_s: float
    first_text_p50_s: float
    first_text_p99_s: float
    latency_p50_s: float
    latency_p99_s: float


async def closed_loop(drive: Drive, load: Load) -> Figures:
    """Answer `load.questions` at a time, each with the plan of a graph of the workload.

    Runs that are in flight at the end are cancelled; their tokens until then count. Raises
    `RuntimeError` if a run fails, or none ends.
    """
    loop = asyncio.get_running_loop()
    chance, graphs = random.Random(0), _shuffled(random.Random(0))
    tokens, first, latency = 0, list[float](), list[float]()
    start_s = loop.time() + load.warm_up_s
    end_s = start_s + load.measured_s

    async def ask(request: RunRequest) -> None:
        nonlocal tokens
        began, shown = loop.time(), None
        async with aclosing(drive(request)) as batches:
            async for batch in batches:
                now = loop.time()
                for event in batch:
                    if isinstance(event, RunFailed):
                        raise RuntimeError(event.message)
                    if isinstance(event, NodeOutput):
                        if start_s <= now < end_s:
                            tokens += len(event.tokens)
                        if shown is None and event.number == 1 and event.tokens:
                            shown = now - began
                    if isinstance(event, RunFinished) and start_s <= now < end_s:
                        first.append(shown or 0.0)
                        latency.append(now - began)

    async def keep_asking(number: int) -> None:
        # Not all at once, or they would go on in step.
        await asyncio.sleep(chance.uniform(0.0, load.warm_up_s / 2))
        asked = 0
        while loop.time() < end_s:
            await ask(new_request(next(graphs), f"{load.name}{number}-{asked}", load))
            asked += 1

    clients = [asyncio.create_task(keep_asking(number)) for number in range(load.questions)]
    done, running = await asyncio.wait(
        clients, timeout=end_s - loop.time(), return_when=asyncio.FIRST_EXCEPTION
    )
    for client in running:
        client.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for client in done:
        client.result()
    if not latency:
        raise RuntimeError(f"no question was answered in {load.measured_s:g} s; measure longer")
    return Figures(
        tokens / load.measured_s,
        percentile(first, 0.5),
        percentile(first, 0.99),
        percentile(latency, 0.5),
        percentile(latency, 0.99),
    )


def _shuffled(chance: random.Random) -> Iterator[FixedGraph]:
    """All graphs in random order, again and again: short loads have the same mix as long ones."""
    graphs = fixed_graphs()
    while True:
        yield from chance.sample(graphs, len(graphs))


def new_request(graph: FixedGraph, name: str, load: Load) -> RunRequest:
    """A question of its own tenant, with the plan of the workload."""
    return RunRequest(
        run_id=name,
        messages=(Message("user", f"{graph.question} ({name})"),),
        mode=Mode.PLATO,
        sampling=SamplingParams(),
        max_nodes=MAX_NODES,
        deadline_s=load.deadline_s,
        tenant=name,
        plan=graph.scaled(load.scale),
        exact_lengths=True,
    )
