"""A scheduler dies or leaves, and another one goes on with its runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import pytest

from plato.context import MemoryContextStore, RunRecord
from plato.errors import RunNotFoundError, UnavailableError
from plato.runs import (
    BEFORE_ALL,
    EventId,
    NodeFinished,
    NodeOutput,
    NodeStarted,
    RunEvent,
    RunEvents,
    RunFailed,
    RunFinished,
    RunRequest,
    RunState,
)
from plato.runs.failover import follow_with_failover
from plato.scheduling import run
from plato.scheduling.ownership import registry
from tests.scheduling.cluster import Cluster, Process, SchedulerDiedError
from tests.scheduling.helpers import DIAMOND, collect, finished, of, parts, question, texts, until

LENGTH = 40
PATIENCE_S = 20.0


def diamond(**fields: object) -> RunRequest:
    return question(plan=parts(*DIAMOND, max_tokens=LENGTH), exact_lengths=True, **fields)


async def followed(
    process: Process, asked: RunRequest, after: EventId = BEFORE_ALL
) -> list[RunEvent]:
    """The events of a run, wherever it is driven."""
    events: list[RunEvent] = []
    async with asyncio.timeout(PATIENCE_S):
        async with aclosing(
            process.scheduler.runs.follow(asked.tenant, asked.run_id, after)
        ) as batches:
            async for batch in batches:
                events += batch
    return events


def answer(asked: RunRequest, events: list[RunEvent]) -> str:
    return RunState(asked, events).answer().text


@pytest.fixture(scope="module")
def known() -> list[str]:
    """The answer of a run that nothing happens to, once there has been one."""
    return []


@pytest.fixture
async def undisturbed(cluster: Cluster, known: list[str]) -> str:
    if not known:
        asked = diamond()
        known.append(answer(asked, await collect(cluster.schedulers[0].scheduler, asked)))
    return known[0]


def slow(cluster: Cluster, slow_s: float = 0.02) -> None:
    """Make runs long enough to be disturbed."""
    for switch in cluster.pool.switches.values():
        switch.slow_s = slow_s


async def eventually(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until another process has brought something about."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - it is seen through a store
            await asyncio.sleep(0.02)


async def logged(cluster: Cluster, asked: RunRequest, kind: type, number: int) -> None:
    """Wait until the log has an event of a kind and node."""
    other = cluster.schedulers[1].scheduler

    async def there() -> bool:
        try:
            snapshot = await other.runs.snapshot(asked.tenant, asked.run_id)
        except RunNotFoundError:
            return False
        return any(event.number == number for event in of(kind, list(snapshot.events)))

    await eventually(there)


async def recorded(cluster: Cluster, asked: RunRequest) -> RunRecord:
    """The record of a run that is done."""
    found: list[RunRecord] = []

    async def done() -> bool:
        record = await cluster.store.get_run(asked.tenant, asked.run_id)
        found[:] = [record] if record is not None and record.state == "done" else []
        return bool(found)

    await eventually(done)
    return found[0]


async def test_a_run_that_nobody_follows_goes_on_when_its_scheduler_dies(
    cluster: Cluster, undisturbed: str
) -> None:
    slow(cluster)
    asked = diamond()
    first, second = cluster.schedulers
    await first.scheduler.open(asked)
    await logged(cluster, asked, NodeOutput, 2)
    before = len(cluster.pool.requests)
    await first.kill()
    cluster.mend()
    events = await followed(second, asked)
    finished(events)
    assert answer(asked, events) == undisturbed
    # What was finished is not decoded again, and what was begun is not begun again.
    again = [request for _, request in cluster.pool.requests[before:]]
    assert 1 not in [request.node for request in again]
    assert any(request.emitted for request in again if request.node in (2, 3))
    assert (await recorded(cluster, asked)).owner.partition(":")[0] == "scheduler-1"


async def test_a_scheduler_that_leaves_hands_over_what_nobody_follows(
    cluster: Cluster, undisturbed: str
) -> None:
    slow(cluster)
    asked = diamond()
    first, second = cluster.schedulers
    await first.scheduler.open(asked)
    await logged(cluster, asked, NodeOutput, 2)
    await first.scheduler.drain()
    assert len(first.scheduler.runs) == 0
    with pytest.raises(UnavailableError, match="shutting down"):
        await first.scheduler.open(diamond())
    cluster.mend()
    events = await followed(second, asked)
    finished(events)
    assert not of(RunFailed, events)
    assert answer(asked, events) == undisturbed


@pytest.mark.slow
async def test_a_scheduler_that_has_lost_a_run_to_another_lets_go_of_it(
    cluster: Cluster, undisturbed: str
) -> None:
    slow(cluster)
    asked = diamond()
    first, second = cluster.schedulers
    await first.scheduler.open(asked)
    await logged(cluster, asked, NodeOutput, 1)
    # Cut off from the store, it goes on; others take it for dead.
    first.store.away = True
    await until(lambda: asked.run_id in second.scheduler.runs)
    first.store.away = False
    await until(lambda: asked.run_id not in first.scheduler.runs)
    for switch in cluster.pool.switches.values():
        switch.slow_s = 0.0
    events = await followed(second, asked)
    finished(events)
    assert answer(asked, events) == undisturbed
    assert (await recorded(cluster, asked)).owner.partition(":")[0] == "scheduler-1"


async def test_a_run_can_be_followed_from_where_a_reader_was_through_any_scheduler(
    cluster: Cluster,
) -> None:
    asked = diamond()
    first, second = cluster.schedulers
    whole = await collect(first.scheduler, asked)
    await until(lambda: not first.scheduler.runs)
    await logged(cluster, asked, NodeFinished, 4)
    assert await followed(second, asked) == whole
    middle = whole[len(whole) // 2].id
    assert await followed(second, asked, middle) == [event for event in whole if event.id > middle]


@pytest.mark.hostile
async def test_a_run_that_has_ended_and_whose_events_were_evicted_is_gone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "CHECK_INTERVAL_S", 0.05)
    asked = diamond()
    first, second = cluster.schedulers
    whole = await collect(first.scheduler, asked)
    await recorded(cluster, asked)
    await until(lambda: first.scheduler.runs.find("", asked.run_id) is None)
    runs = second.scheduler.runs
    assert isinstance(cluster.store, MemoryContextStore)
    log = cluster.store._tenants[""].runs[asked.run_id].events
    log.clear()
    for after in (BEFORE_ALL, whole[-2].id):
        with pytest.raises(RunNotFoundError, match="not stored any more"):
            await anext(runs.follow("", asked.run_id, after))
    with pytest.raises(RunNotFoundError, match="not stored any more"):
        await runs.snapshot("", asked.run_id)


@pytest.mark.hostile
async def test_a_follower_does_not_wait_for_an_end_that_was_evicted(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "CHECK_INTERVAL_S", 0.05)
    slow(cluster)
    asked = diamond()
    first, second = cluster.schedulers
    await first.scheduler.open(asked)
    await logged(cluster, asked, NodeFinished, 1)
    slow(cluster, 1.0)
    following = asyncio.create_task(followed(second, asked))
    assert isinstance(cluster.store, MemoryContextStore)
    await asyncio.sleep(0.5)
    cluster.store.read_events = no_events  # type: ignore[method-assign]
    await first.scheduler.runs.cancel("", asked.run_id)
    with pytest.raises(RunNotFoundError, match="not stored any more"):
        await following


async def no_events(*_: object) -> tuple[()]:
    return ()


async def test_a_store_that_has_lost_everything_gets_it_again(
    cluster: Cluster, undisturbed: str
) -> None:
    slow(cluster)
    asked = diamond()
    first, second = cluster.schedulers
    await first.scheduler.open(asked)
    await logged(cluster, asked, NodeFinished, 1)
    cluster.store = MemoryContextStore()
    for process in cluster.schedulers:
        process.store.replace(cluster.store)
    cluster.mend()
    events = await followed(first, asked)
    assert answer(asked, events) == undisturbed
    await recorded(cluster, asked)
    assert answer(asked, await followed(second, asked)) == undisturbed


async def test_a_run_without_a_store_is_known_to_its_scheduler_and_says_what_it_lacked(
    cluster: Cluster, undisturbed: str
) -> None:
    asked = diamond()
    first, second = cluster.schedulers
    for process in cluster.schedulers:
        process.store.away = True
    events = await collect(first.scheduler, asked)
    assert finished(events).degraded == ("context store",)
    assert answer(asked, events) == undisturbed
    snapshot = await first.scheduler.runs.snapshot("", asked.run_id)
    assert isinstance(snapshot.events[-1], RunFinished)
    with pytest.raises(UnavailableError, match="context store"):
        await second.scheduler.runs.snapshot("", asked.run_id)
    # It is written when the store is back.
    cluster.mend()
    await recorded(cluster, asked)
    assert answer(asked, await followed(second, asked)) == undisturbed


@pytest.mark.slow
async def test_cancelling_ends_a_run_everywhere_and_its_followers_are_told(
    cluster: Cluster,
) -> None:
    slow(cluster)
    asked = diamond()
    first, second = cluster.schedulers
    await first.scheduler.open(asked)
    following = asyncio.create_task(followed(second, asked))
    await logged(cluster, asked, NodeStarted, 1)
    assert not await second.scheduler.runs.cancel("", asked.run_id)
    assert await second.scheduler.runs.owner("", asked.run_id) == "scheduler-0"
    assert await first.scheduler.runs.cancel("", asked.run_id)
    end = (await following)[-1]
    assert isinstance(end, RunFailed)
    assert end.code == "cancelled"
    await until(lambda: all(not e.stats().live for e in cluster.pool.engines.values()))

    async def given_up() -> bool:
        return await second.scheduler.runs.owner("", asked.run_id) is None

    await eventually(given_up)
    # Nobody takes it over.
    await asyncio.sleep(1.0)
    assert not second.scheduler.runs


async def test_a_run_is_its_tenants_alone(cluster: Cluster) -> None:
    asked = diamond(tenant="acme")
    first, _ = cluster.schedulers
    await collect(first.scheduler, asked)
    with pytest.raises(RunNotFoundError, match="not found"):
        await first.scheduler.runs.snapshot("other", asked.run_id)
    with pytest.raises(RunNotFoundError):
        await first.scheduler.runs.owner("other", asked.run_id)
    assert not await first.scheduler.runs.cancel("other", asked.run_id)


@pytest.mark.slow
async def test_a_planned_run_goes_on_with_the_same_plan(cluster: Cluster) -> None:
    slow(cluster)
    asked = question()
    first, second = cluster.schedulers
    quiet = question()
    whole = await collect(first.scheduler, quiet)
    await first.scheduler.open(asked)
    await logged(cluster, asked, NodeStarted, 1)
    await first.kill()
    cluster.mend()
    events = await followed(second, asked)
    assert [node.title for node in finished(events).nodes] == [
        node.title for node in finished(whole).nodes
    ]
    assert answer(asked, events) == answer(quiet, whole)
    assert set(texts(whole)) == {node.number for node in finished(events).nodes}


async def test_a_run_that_kills_every_scheduler_that_adopts_it_is_given_up(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "MAX_TAKEOVERS", 2)
    slow(cluster)
    asked = diamond()
    processes, requests = cluster.schedulers, cluster.pool.requests
    await processes[0].scheduler.open(asked)
    for killed in range(3):
        # At the first thing that it does: the one that adopts the run has counted itself by then.
        await until(lambda: requests)
        (index,) = (i for i in (0, 1) if asked.run_id in processes[i].scheduler.runs)
        dead, processes[index] = processes[index], Process(f"scheduler-{killed + 2}", cluster)
        await dead.kill()
        requests.clear()
        for process in processes:
            process.store.slow_s = 0.02

    async def given_up() -> bool:
        record = await cluster.store.get_run(asked.tenant, asked.run_id)
        return record is not None and record.state == "failed"

    await eventually(given_up)
    end = (await followed(processes[0], asked))[-1]
    assert isinstance(end, RunFailed)
    assert end.code == "node_failed"
    assert "3 schedulers have failed" in end.message


async def test_an_ingress_gives_a_run_up_that_kills_every_scheduler(cluster: Cluster) -> None:
    slow(cluster)
    asked = diamond()
    calls = 0

    async def poisoned(
        request: RunRequest, received: RunEvents | None
    ) -> AsyncGenerator[RunEvents]:
        nonlocal calls
        calls += 1
        process = Process(f"scheduler-{calls + 2}", cluster)
        try:
            async with aclosing(process.drive(request, received)) as batches:
                async for batch in batches:
                    yield batch
                    if not isinstance(batch[-1], RunFailed):
                        raise SchedulerDiedError
        finally:
            await process.kill()

    state = RunState(asked)
    following = follow_with_failover(poisoned, state, patience_s=60.0)
    async with asyncio.timeout(PATIENCE_S), aclosing(following) as batches:
        async for _ in batches:
            pass
    assert isinstance(state.ended, RunFailed)
    assert state.ended.code == "node_failed"
    assert calls == run.MAX_TAKEOVERS + 2


async def test_a_takeover_does_not_start_the_deadline_again(cluster: Cluster) -> None:
    slow(cluster)
    asked = diamond(deadline_s=1.0)
    first, second = cluster.schedulers
    second.store.away = True
    admitted = time.monotonic()
    await first.scheduler.open(asked)
    await logged_at(cluster, asked)
    await first.kill()
    await asyncio.sleep(admitted + 1.1 - time.monotonic())
    before = len(cluster.pool.requests)
    second.store.away = False
    end = (await followed(second, asked))[-1]
    assert isinstance(end, RunFailed)
    assert end.code == "deadline_exceeded"
    assert len(cluster.pool.requests) == before


async def logged_at(cluster: Cluster, asked: RunRequest) -> None:
    """Wait until the store has some of a run's text."""

    async def there() -> bool:
        return bool(await cluster.store.read_events(asked.tenant, asked.run_id, BEFORE_ALL))

    await eventually(there)
