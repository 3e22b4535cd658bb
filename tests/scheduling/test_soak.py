"""Five hundred runs with cancellations and deaths leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
from redis import asyncio as aioredis

from plato.context.redis import RedisContextStore
from plato.engine.torch import TorchEngine
from plato.engine.torch.core import EngineCore
from plato.prompting.model_tools import ModelTools
from plato.runs import RunFailed, RunFinished, RunRequest, RunState
from plato.runs.failover import follow_with_failover
from plato.scheduling import plan_follower
from tests.faults import FaultyEngines
from tests.scheduling.cluster import DEADLINE_S, Cluster, Process
from tests.scheduling.helpers import DIAMOND, parts, question, until

RUNS = 500
AT_ONCE = 8
WARM_UP = 100
"""Runs after which caches have their size."""
MOST_GROWTH = 60 << 20
"""Bytes: what allocators keep to themselves; a run that stayed would be a hundred times that."""


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def play(cluster: Cluster, asked: RunRequest, chance: random.Random) -> str:
    """One run: to its end, left after a few batches, or on its own and cancelled by its id."""
    fate = chance.choice(["whole", "whole", "left", "cancelled"])
    if fate == "cancelled":
        scheduler = chance.choice(cluster.schedulers).scheduler
        await scheduler.open(asked)
        await asyncio.sleep(chance.uniform(0.0, 0.05))
        await scheduler.runs.cancel(asked.tenant, asked.run_id)
        return fate
    batches = 0
    most = chance.randrange(1, 6) if fate == "left" else None
    async with aclosing(follow_with_failover(cluster.drive, RunState(asked), DEADLINE_S)) as events:
        async for batch in events:
            batches += 1
            if batches == most:
                break
            assert not isinstance(batch[-1], RunFailed), batch[-1]
            if isinstance(batch[-1], RunFinished):
                return "whole"
    return fate


def asked(index: int) -> RunRequest:
    tenant = f"tenant-{index % 5}"
    if index % 3 == 0:
        return question(tenant=tenant)
    return question(
        plan=parts(*DIAMOND, max_tokens=4 + index % 9), exact_lengths=True, tenant=tenant
    )


@pytest.mark.soak
async def test_nothing_is_left_of_five_hundred_runs(
    shared_engines: dict[str, TorchEngine],
    tools: ModelTools,
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Its planners die far more often than any would.
    monkeypatch.setattr(plan_follower, "PLAN_ATTEMPTS", 20)
    chance = random.Random(0)
    process = psutil.Process(os.getpid())
    store = RedisContextStore(valkey_url, timeout_s=2.0, ttl_s=60)
    cluster = Cluster(FaultyEngines(dict(shared_engines)), tools, store)
    tasks = len(asyncio.all_tasks())
    cluster.schedulers = [Process(f"scheduler-{index}", cluster) for index in range(2)]
    fates: list[str] = []
    waiting = list(range(RUNS))
    calm = asyncio.Event()

    async def keep_playing() -> None:
        while waiting:
            index = waiting.pop()
            fates.append(await play(cluster, asked(index), chance))

    async def keep_disturbing() -> None:
        while not calm.is_set():
            await asyncio.sleep(0.1)
            name = chance.choice(list(cluster.pool.switches))
            cluster.pool.kill(name)
            await asyncio.sleep(0.05)
            cluster.pool.revive(name)
            if chance.random() < 0.05:
                dead = cluster.schedulers[0]
                cluster.schedulers[0] = Process("scheduler-0", cluster)
                await dead.kill()

    disturbing = asyncio.create_task(keep_disturbing())
    players = [asyncio.create_task(keep_playing()) for _ in range(AT_ONCE)]
    while len(fates) < WARM_UP:  # noqa: ASYNC110 - progress, not an event
        await asyncio.sleep(0.05)
    files, memory = open_files(), process.memory_info().rss
    await asyncio.gather(*players)
    calm.set()
    await disturbing
    assert len(fates) == RUNS

    async with (
        asyncio.timeout(DEADLINE_S),
        aioredis.Redis.from_url(valkey_url, protocol=2) as client,
    ):
        # Runs of schedulers that have died are adopted and driven to their ends.
        while await client.zcard("plato:running"):  # noqa: ASYNC110 - not in this process
            await asyncio.sleep(0.05)
    await until(lambda: not any(one.scheduler.runs for one in cluster.schedulers), DEADLINE_S)
    for engine in shared_engines.values():
        await until(lambda engine=engine: engine.stats().live == ())
        await engine.inspect(EngineCore.check_integrity)
    for one in cluster.schedulers:
        await one.scheduler.close()
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    async with aioredis.Redis.from_url(valkey_url, protocol=2) as client:
        keys = [key async for key in client.scan_iter("plato:*")]
        assert keys
        # -1: it has no end. -2: it has ended since the scan.
        assert not [key for key in keys if await client.ttl(key) == -1]
        assert await client.zcard("plato:running") == 0
    await store.close()
    gc.collect()
    grown = process.memory_info().rss - memory
    lives = sum(switch.lives for switch in cluster.pool.switches.values())
    print(
        f"\n{RUNS} runs, {fates.count('whole')} to their ends, {lives} deaths of decoders; "
        f"{len(keys)} keys, {open_files()} files ({files} before), {grown / 2**20:+.1f} MiB"
    )
    assert open_files() <= files + 2
    assert grown < MOST_GROWTH
