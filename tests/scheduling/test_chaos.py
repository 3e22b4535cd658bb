"""Everything fails, at random and from a seed: no run hangs, is lost, or says another word.

`PLATO_CHAOS_SEEDS=200` runs more schedules; `make soak` runs 40.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from contextlib import aclosing
from dataclasses import replace

import pytest

from plato.runs import NodeOutput, NodeQueued, RunRequest, RunState
from plato.runs.failover import follow_with_failover
from tests.scheduling.cluster import DEADLINE_S, Cluster
from tests.scheduling.helpers import DIAMOND, parts, question, until

SEEDS = int(os.environ.get("PLATO_CHAOS_SEEDS", "3"))
RUNS = 6
FAULTS = 25


def asked(index: int) -> RunRequest:
    """Runs of several kinds, some planned by the model."""
    if index % 3 == 2:
        return question()
    return question(plan=parts(*DIAMOND, max_tokens=40), exact_lengths=True)


async def answer(cluster: Cluster, request: RunRequest, seen: Counter[str]) -> str:
    """The text that a client gets."""
    state = RunState(request)
    released = []
    quiet_since = time.monotonic()
    async with aclosing(follow_with_failover(cluster.drive, state, DEADLINE_S)) as batches:
        async for batch in batches:
            now = time.monotonic()
            silence_ms = round(1000 * (now - quiet_since))
            seen["longest silence in ms"] = max(seen["longest silence in ms"], silence_ms)
            quiet_since = now
            for event in batch:
                seen["attempts"] += isinstance(event, NodeQueued) and event.attempt > 0
                seen["tokens"] += len(event.tokens) if isinstance(event, NodeOutput) else 0
                released.append(event.text)
    assert "".join(released) == state.answer().text
    return state.answer().text


@pytest.mark.slow
async def test_no_fault_changes_an_answer(cluster: Cluster) -> None:
    seen: Counter[str] = Counter()
    requests = [asked(index) for index in range(RUNS)]
    undisturbed = [
        await answer(cluster, replace(one, run_id=f"quiet-{one.run_id}"), seen) for one in requests
    ]
    for seed in range(SEEDS):
        chance = random.Random(seed)
        async with asyncio.timeout(2 * DEADLINE_S):
            runs = [
                asyncio.create_task(
                    answer(cluster, replace(one, run_id=f"{one.run_id}-{seed}"), seen)
                )
                for one in requests
            ]
            for _ in range(FAULTS):
                if all(run.done() for run in runs):
                    break
                await cluster.disturb(chance)
            cluster.mend()
            assert await asyncio.gather(*runs) == undisturbed, f"seed {seed}"
    print(f"\n{SEEDS} seeds, {SEEDS * RUNS} runs: {dict(seen)}, faults {dict(cluster.happened)}")
    await until(lambda: not any(process.scheduler.runs for process in cluster.schedulers))
    assert sum(cluster.happened.values()) > SEEDS
