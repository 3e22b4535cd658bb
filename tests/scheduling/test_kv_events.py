"""Schedulers learn from KV events what decoders have stored and removed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from plato.context import MemoryContextStore
from plato.engine import Load
from plato.engine.torch import TorchEngine
from plato.prompting.model_tools import ModelTools
from plato.runs import Message, PlanGraph, RunRequest
from plato.scheduling.kv_events import KVEventFollower, publish_kv_events
from plato.scheduling.placement import ReplicaTable
from plato.scheduling.scheduler import GraphScheduler
from tests.faults import FaultyEngines, FaultyStore
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import DIAMOND, collect, finished, parts, question, until

LONG = "salt and water, " * 40


class Pool:
    """Engines, the store that they publish to, and a scheduler's view of both."""

    def __init__(self, engines: dict[str, TorchEngine]) -> None:
        self.pool = FaultyEngines(dict(engines))
        self.store = FaultyStore(MemoryContextStore())
        self.replicas = ReplicaTable()
        self.follower = KVEventFollower(self.store, self.pool, self.replicas)  # type: ignore[arg-type]
        self.tasks = [
            asyncio.create_task(publish_kv_events(engine, name, self.store))  # type: ignore[arg-type]
            for name, engine in engines.items()
        ]
        self.tasks.append(asyncio.create_task(self.follower.follow()))
        self.replicas.update([replica.name for replica in self.pool.replicas()])

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)


@pytest.fixture
async def pool(shared_engines: dict[str, TorchEngine]) -> AsyncIterator[Pool]:
    made = Pool(shared_engines)
    yield made
    await made.close()


@pytest.fixture
def scheduler(make_scheduler: MakeScheduler, pool: Pool) -> GraphScheduler:
    return make_scheduler(pool.pool)


def asked() -> RunRequest:
    """A question that nobody has asked these engines before."""
    return question(
        plan=parts(*DIAMOND), messages=(Message("user", f"{uuid4()} {LONG}"),), tenant="acme"
    )


def known(pool: Pool, tools: ModelTools, request: RunRequest) -> set[str]:
    """Replicas that have the run's question cached, as the other scheduler believes."""
    conversation = tools.layout.start(request.messages, request.tenant)
    graph = PlanGraph(request.plan[:1])  # type: ignore[index]
    prompt = conversation.node_prompt(graph, 1, {}, lambda node: 8).prompt
    public = prompt.public_tokens
    return {name for name in pool.pool.switches if pool.replicas.cached(prompt, name) > public}


async def test_a_scheduler_learns_what_another_has_placed(
    scheduler: GraphScheduler, pool: Pool, tools: ModelTools
) -> None:
    request = asked()
    report = finished(await collect(scheduler, request))
    used = {node.replica for node in report.nodes}

    await until(lambda: known(pool, tools, request) >= used)


async def test_after_a_gap_a_snapshot_is_fetched(
    scheduler: GraphScheduler, pool: Pool, tools: ModelTools
) -> None:
    await until(lambda: pool.follower.snapshots >= 3)
    pool.store.away = True
    request = asked()
    report = finished(await collect(scheduler, request))
    await asyncio.sleep(0.3)
    assert known(pool, tools, request) == set()
    pool.store.away = False
    before = pool.follower.snapshots
    # The next batch of each shows that one is missing.
    for _ in range(3):
        finished(await collect(scheduler, asked()))
    async with asyncio.timeout(10):
        while not known(pool, tools, request) & {n.replica for n in report.nodes}:
            finished(await collect(scheduler, asked()))
            await asyncio.sleep(0.1)
    assert pool.follower.snapshots > before


async def test_another_epoch_of_a_replica_voids_what_was_known(
    scheduler: GraphScheduler, pool: Pool, tools: ModelTools
) -> None:
    request = asked()
    finished(await collect(scheduler, request))
    await until(lambda: known(pool, tools, request))
    (name, *_) = known(pool, tools, request)
    pool.replicas.observe(name, "another epoch", Load())
    assert name not in known(pool, tools, request)
