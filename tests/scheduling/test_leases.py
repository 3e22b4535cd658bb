"""A lease lives while the scheduler does and decodes something, and no longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack

import pytest

from plato.engine import Chunk, GenerateRequest, Replica
from plato.engine.torch import TorchEngine
from plato.runs import NodeQueued
from plato.runtime import LocalPool
from plato.scheduling import leases
from plato.scheduling.leases import LeaseKeeper
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import (
    RemotePool,
    ScriptedPlanner,
    collect,
    finished,
    of,
    parts,
    question,
    until,
)

TTL_S = 0.15


class Renewals:
    """A pool that only counts renewals, and fails some."""

    remote = True

    def __init__(self) -> None:
        self.by_replica: dict[str, int] = {}
        self.faults: dict[str, BaseException] = {}

    def replicas(self) -> tuple[Replica, ...]:
        return ()

    async def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        raise NotImplementedError
        yield

    async def renew(self, owner: str, ttl_s: float, replica: str) -> None:
        assert owner == "me"
        assert ttl_s >= TTL_S
        self.by_replica[replica] = self.by_replica.get(replica, 0) + 1
        if replica in self.faults:
            raise self.faults[replica]
        if replica == "hangs":
            await asyncio.sleep(60)

    async def release(self, run_id: str, replica: str) -> None:
        raise NotImplementedError


@pytest.fixture
def pool() -> Renewals:
    return Renewals()


@pytest.fixture
def keeper(pool: Renewals) -> LeaseKeeper:
    return LeaseKeeper(pool, "me", TTL_S)


async def test_it_renews_while_something_is_held_and_stops_after(
    keeper: LeaseKeeper, pool: Renewals
) -> None:
    with keeper.holding("a"):
        with keeper.holding("a"), keeper.holding("b"):
            await until(lambda: pool.by_replica == {"a": 2, "b": 2})
        await until(lambda: pool.by_replica["a"] >= 4)
        assert pool.by_replica["b"] <= 3
    seen = dict(pool.by_replica)
    await asyncio.sleep(TTL_S)
    assert pool.by_replica == seen


async def test_it_starts_again(keeper: LeaseKeeper, pool: Renewals) -> None:
    for count in (1, 2):
        with keeper.holding("a"):
            await until(lambda count=count: pool.by_replica.get("a", 0) >= count)
        await asyncio.sleep(TTL_S)


@pytest.mark.parametrize("error", [RuntimeError("gone"), asyncio.CancelledError()])
async def test_a_renewal_that_fails_does_not_end_the_others(
    keeper: LeaseKeeper, pool: Renewals, error: BaseException
) -> None:
    pool.faults["bad"] = error
    with keeper.holding("bad"), keeper.holding("good"):
        await until(lambda: pool.by_replica.get("good", 0) >= 3)
    assert pool.by_replica["bad"] >= 3


async def test_a_replica_that_hangs_does_not_delay_the_others(
    keeper: LeaseKeeper, pool: Renewals
) -> None:
    started = time.monotonic()
    with keeper.holding("hangs"), keeper.holding("good"):
        await until(lambda: pool.by_replica.get("good", 0) >= 4)
    assert time.monotonic() - started < 4 * TTL_S


async def test_closing_stops_it(keeper: LeaseKeeper, pool: Renewals) -> None:
    with keeper.holding("a"):
        await until(lambda: bool(pool.by_replica))
        await keeper.close()
        seen = dict(pool.by_replica)
        await asyncio.sleep(TTL_S)
        assert pool.by_replica == seen


async def test_a_replica_is_not_lost_because_this_process_was_late(pool: Renewals) -> None:
    keeper, lost = LeaseKeeper(pool, "me", TTL_S, silence_s=2 * TTL_S), []
    with keeper.holding("a", lambda: lost.append("a")):
        await until(lambda: pool.by_replica.get("a", 0) >= 2)
        for _ in range(3):
            time.sleep(6 * TTL_S)  # noqa: ASYNC251 - as on a busy machine
            await asyncio.sleep(TTL_S)
    assert not lost


async def test_a_process_that_is_late_asks_for_longer_leases(pool: Renewals) -> None:
    asked = []
    renew = pool.renew

    async def noting(owner: str, ttl_s: float, replica: str) -> None:
        asked.append(ttl_s)
        await renew(owner, ttl_s, replica)

    pool.renew = noting  # type: ignore[method-assign]
    with LeaseKeeper(pool, "me", TTL_S).holding("a"):
        await until(lambda: len(asked) >= 2)
        time.sleep(1.0)  # noqa: ASYNC251
        await until(lambda: asked[-1] > TTL_S + 1.0)


async def test_leases_at_many_replicas_are_longer_and_renewed_less_often(
    pool: Renewals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEWALS_PER_S", 20)
    keeper = LeaseKeeper(pool, "me", TTL_S)
    with ExitStack() as held:
        for number in range(10):
            held.enter_context(keeper.holding(f"r{number}"))
        assert keeper.lease is not None
        assert keeper.lease.ttl_s == pytest.approx(10 * leases.RENEWALS / 20)
        await asyncio.sleep(0.7)
        # The first ones, and those after half a second; with short leases it would be 15 each.
        assert 10 < sum(pool.by_replica.values()) <= 20


async def test_in_one_process_there_is_nothing_to_lease(engine: TorchEngine) -> None:
    keeper = LeaseKeeper(LocalPool({"local": engine}), "me", TTL_S)
    assert keeper.lease is None
    with keeper.holding("local"):
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("lease-")]


@pytest.mark.slow
async def test_a_long_run_outlives_its_ttl(
    make_scheduler: MakeScheduler, engine: TorchEngine
) -> None:
    scheduler = make_scheduler(RemotePool({"local": engine}), lease_ttl_s=0.3)
    plan = parts((), (1,), max_tokens=400)
    report = finished(await collect(scheduler, question(plan=plan, exact_lengths=True)))
    assert report.duration_s > 0.6
    assert report.output_tokens == 800


async def test_the_lease_goes_with_the_plan_too(
    make_scheduler: MakeScheduler, engine: TorchEngine
) -> None:
    planner = ScriptedPlanner(*parts((), ()))
    scheduler = make_scheduler(RemotePool({"local": engine}), planner=planner, lease_ttl_s=7.0)
    await collect(scheduler, question())
    (asked,) = planner.requests
    assert asked.lease is not None
    assert asked.lease.ttl_s == 7.0


@pytest.mark.slow
async def test_an_engine_drops_the_sequences_of_a_scheduler_that_hangs_until_it_is_back(
    make_scheduler: MakeScheduler, engine: TorchEngine
) -> None:
    scheduler = make_scheduler(RemotePool({"local": engine}), lease_ttl_s=0.4)
    plan = parts((), (), max_tokens=900)
    run = asyncio.create_task(collect(scheduler, question(plan=plan, exact_lengths=True)))
    await until(lambda: len(engine.stats().live) == 2)
    time.sleep(1.0)  # noqa: ASYNC251 - blocking the loop is the point
    # The loop has not turned yet: it is the engine that has let go.
    assert engine.stats().live == ()
    events = await run
    assert {part.attempts for part in finished(events).nodes} == {2}
    assert all("lease" in (event.reason or "") for event in of(NodeQueued, events) if event.attempt)
