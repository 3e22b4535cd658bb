"""What a run leaves in the context store, and what it does without one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from plato.context import ContextStore, MemoryContextStore, NodeRecord, RunRecord
from plato.context.records import unpack
from plato.context.redis import RedisContextStore
from plato.errors import InvalidRequestError, StorageQuotaError
from plato.prompting.model_tools import ModelTools
from plato.runs import (
    BEFORE_ALL,
    Message,
    Mode,
    NodeFinished,
    NodeOutput,
    RunError,
    RunRequest,
)
from plato.runtime import LocalPool
from plato.scheduling.ownership.journal import QUESTION_CHARS
from tests.context import examples
from tests.faults import FaultyStore
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import (
    DIAMOND,
    FaultyPool,
    ScriptedPlanner,
    ScriptedPool,
    collect,
    failed,
    finished,
    node,
    of,
    parts,
    question,
    texts,
    watching,
)

TENANT = "acme"


@pytest.fixture(params=["memory", "valkey"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ContextStore]:
    """Both stores; what holds for one holds for the other."""
    made: ContextStore = MemoryContextStore()
    if request.param == "valkey":
        made = RedisContextStore(request.getfixturevalue("valkey_url"), timeout_s=5.0, ttl_s=60)
    yield made
    await made.close()


async def written(store: ContextStore, asked: RunRequest, state: str) -> RunRecord:
    """The run's record, as soon as it has this state."""
    async with asyncio.timeout(30):
        while True:
            record = await store.get_run(asked.tenant, asked.run_id)
            if record is not None and record.state == state:
                return record
            await asyncio.sleep(0.01)


async def released(store: ContextStore, asked: RunRequest) -> int:
    """The fence of the next owner, as soon as there can be one."""
    async with asyncio.timeout(30):
        while True:
            fence = await store.acquire(asked.tenant, asked.run_id, "somebody else", 1.0)
            if fence is not None:
                return fence
            await asyncio.sleep(0.01)


async def test_only_the_beginning_of_the_question_is_kept_of_a_conversation(
    make_scheduler: MakeScheduler, pool: LocalPool, store: ContextStore
) -> None:
    history = (Message("user", "Hi"), Message("assistant", "Hello"))
    last = Message("user", "word " * 600)
    asked = question(plan=parts((), ()), tenant=TENANT, messages=(*history, last))
    await collect(make_scheduler(pool, store=store), asked)
    record = await written(store, asked, "done")
    (kept,) = unpack(RunRequest, record.request).messages
    assert kept == Message("user", last.content[:QUESTION_CHARS])


async def test_a_finished_run_is_there_for_others(
    make_scheduler: MakeScheduler, pool: LocalPool, store: ContextStore
) -> None:
    asked = question(plan=parts(*DIAMOND), tenant=TENANT)
    before = time.time()
    scheduler = make_scheduler(pool, store=store)
    events = await collect(scheduler, asked)
    report = finished(events)
    assert report.degraded == ()
    record = await written(store, asked, "done")
    assert record.nodes == asked.plan
    assert (record.mode, record.plan_complete) == (Mode.PLATO, True)
    assert record.owner.startswith("scheduler:")
    assert before <= record.created_unix_s <= time.time()
    stored = unpack(RunRequest, record.request)
    assert before <= stored.admitted_unix_s <= time.time()
    expected = replace(asked, fingerprint=scheduler.fingerprint)
    assert replace(stored, admitted_unix_s=0.0) == expected

    outputs = await store.get_nodes(TENANT, asked.run_id)
    assert sorted(outputs) == [1, 2, 3, 4]
    shown = texts(events)
    for number, output in outputs.items():
        part = node(report, number)
        tokens = [
            token
            for event in of(NodeOutput, events)
            if event.number == number
            for token in event.tokens
        ]
        assert output == NodeRecord(
            run_id=asked.run_id,
            tenant=TENANT,
            number=number,
            tokens=tuple(tokens),
            text=shown[number],
            finish="length",
            replica="local",
            epoch=part.epoch,
        )
    assert await store.get_nodes("another tenant", asked.run_id) == {}


async def test_the_ownership_is_given_up_at_the_end(
    make_scheduler: MakeScheduler, pool: LocalPool, tools: ModelTools, store: ContextStore
) -> None:
    held = ScriptedPool(tools)
    held.hold(1)
    asked = question(Mode.SEQUENTIAL)
    async with watching(make_scheduler(held, store=store), asked) as run:
        record = await written(store, asked, "running")
        assert record.fence > 0
        assert await store.acquire(asked.tenant, asked.run_id, "somebody else", 1.0) is None
        held.resume(1)
    assert run.report.mode is Mode.SEQUENTIAL
    assert await released(store, asked) > record.fence


async def test_a_sequential_answer_is_recorded_as_what_it_became(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    store, asked = MemoryContextStore(), question(Mode.AUTO)
    planner = ScriptedPlanner(RuntimeError("lost"))
    await collect(make_scheduler(pool, planner=planner, store=store), asked)
    record = await written(store, asked, "done")
    assert (record.mode, record.plan_complete, len(record.nodes)) == (Mode.SEQUENTIAL, True, 1)


async def test_a_failed_run_says_so(make_scheduler: MakeScheduler, pool: LocalPool) -> None:
    store, asked = MemoryContextStore(), question(plan=parts((), (1,)))
    faulty = FaultyPool(pool, {2: InvalidRequestError("nothing would help")})
    failed(await collect(make_scheduler(faulty, store=store), asked))
    await written(store, asked, "failed")
    assert list(await store.get_nodes("", asked.run_id)) == [1]
    assert await released(store, asked)


async def test_a_cancelled_run_says_so_and_how_far_its_plan_was(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    store, asked = MemoryContextStore(), question()
    planner = ScriptedPlanner(*parts((), ()), asyncio.Event())
    async with aclosing(make_scheduler(pool, planner=planner, store=store).run(asked)) as batches:
        async for batch in batches:
            if of(NodeFinished, list(batch)):
                break
    record = await written(store, asked, "cancelled")
    assert not record.plan_complete
    assert len(record.nodes) == 2
    assert await released(store, asked)


async def test_a_run_is_written_to_its_end_though_the_store_s_answers_were_lost(
    make_scheduler: MakeScheduler, pool: LocalPool, store: ContextStore
) -> None:
    view, asked = FaultyStore(store), question(plan=parts(*DIAMOND), tenant=TENANT)
    # The store knows a lease that its owner does not know of.
    view.mute = True
    events = await collect(make_scheduler(pool, store=view), asked)
    assert finished(events).degraded == ("context store",)
    view.mute = False
    await written(store, asked, "done")
    assert await released(store, asked)
    assert sorted(await store.get_nodes(TENANT, asked.run_id)) == [1, 2, 3, 4]
    assert await store.read_events(TENANT, asked.run_id, BEFORE_ALL)


async def test_without_a_store_the_answer_is_complete_and_says_so(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    # Nobody listens on port 9.
    store = RedisContextStore("redis://127.0.0.1:9/0", timeout_s=0.2)
    events = await collect(
        make_scheduler(pool, store=store), question(plan=parts(*DIAMOND), tenant=TENANT)
    )
    report = finished(events)
    assert report.degraded == ("context store",)
    assert len(texts(events)) == 4
    await store.close()


@pytest.mark.parametrize("mode", [Mode.PLATO, Mode.SEQUENTIAL, Mode.AUTO])
async def test_a_question_that_does_not_fit_is_not_recorded(
    make_scheduler: MakeScheduler, pool: LocalPool, store: ContextStore, mode: Mode
) -> None:
    scheduler = make_scheduler(pool, store=store)
    wordy = (Message("user", 3000 * "word "),)
    answered, opened = (replace(question(mode), messages=wordy) for _ in range(2))
    assert failed(await collect(scheduler, answered)).code == "context_length_exceeded"
    with pytest.raises(RunError, match="context") as refused:
        await scheduler.open(opened)
    assert refused.value.status == 400
    # Also not later, as what the store has missed.
    for run in (answered, opened):
        assert scheduler.runs.find("", run.run_id) is None
    await scheduler.close()
    for run in (answered, opened):
        assert await store.get_run("", run.run_id) is None
        assert await store.read_events("", run.run_id, BEFORE_ALL) == ()
        assert await store.acquire("", run.run_id, "somebody else", 1.0)


async def test_a_run_for_which_the_tenant_has_no_room_is_refused_or_answered_degraded(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    small = MemoryContextStore(quota_bytes=8000)
    scheduler = make_scheduler(pool, store=small)
    running = replace(examples.RUN, request=bytes(7500))
    await small.put_run(running)
    detached, attached, later = (question(tenant=TENANT, plan=parts((), ())) for _ in range(3))
    with pytest.raises(StorageQuotaError, match="wait for one of them to end"):
        await scheduler.open(detached)
    assert detached.run_id not in scheduler.runs
    report = finished(await collect(scheduler, attached))
    assert report.degraded == ("context store",)
    await scheduler.open(question(tenant="other"))
    await small.put_run(replace(running, state="done"))
    await scheduler.open(later)
    await written(small, later, "done")
    assert await small.read_events(TENANT, attached.run_id, BEFORE_ALL) == ()
