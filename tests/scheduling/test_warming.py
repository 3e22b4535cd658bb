"""What a blocked part's prompt begins with is computed while it waits, and delays nobody."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from plato.engine import Chunk, DecoderPool, EngineBusyError, GenerateRequest
from plato.engine.torch import TorchEngine
from plato.runs.graph import Node
from plato.metrics import table
from plato.runs import NodeFinished, RunRequest
from plato.scheduling import warming
from tests.faults import FaultyEngines
from tests.recording import MemoryRecorder
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import (
    Watched,
    collect,
    finished,
    node,
    question,
    texts,
    until,
    watching,
)


def plan(*lengths: int | None) -> tuple[Node, ...]:
    """Parts of these lengths that need nothing, and a last one that needs them all."""
    free = [Node(n, f"Part {n}", (), length) for n, length in enumerate(lengths, start=1)]
    return (*free, Node(len(free) + 1, "Conclusion", tuple(range(1, len(free) + 1)), 10))


_tenants = itertools.count()

LAST = 4
PLAN = plan(60, 60, 10)
"""While 3 is decoded, 4 will probably go on with 2 and quote 1 before it quotes 3."""


class GatedPool(FaultyEngines):
    """Engines whose requests wait behind their acknowledgement where a test says so."""

    def __init__(self, engines: dict[str, TorchEngine]) -> None:
        super().__init__(dict(engines))
        self.gates: dict[int, asyncio.Event] = {}
        """Of parts."""
        self.warm_gate: asyncio.Event | None = None
        self.warm_error: Exception | None = None
        self.warm_live = 0

    @property
    def warm(self) -> list[tuple[str, GenerateRequest]]:
        """(replica, request) of what was asked for in advance."""
        return [(name, asked) for name, asked in self.requests if asked.priority < 0]

    async def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        """The engine's chunks, each as soon as its gate is open."""
        warm = request.priority < 0
        gate = self.warm_gate if warm else self.gates.get(request.node)
        self.warm_live += warm
        try:
            async with aclosing(super().generate(request, ranked)) as chunks:
                async for chunk in chunks:
                    yield chunk
                    if warm and self.warm_error is not None:
                        raise self.warm_error
                    if gate is not None:
                        await gate.wait()
        finally:
            self.warm_live -= warm


@pytest.fixture
async def pool(shared_engines: dict[str, TorchEngine]) -> AsyncIterator[GatedPool]:
    yield GatedPool(shared_engines)
    for engine in shared_engines.values():
        await until(lambda engine=engine: engine.stats().live == ())
        engine.core.check_integrity()


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


def asked(parts: tuple[Node, ...] = PLAN) -> RunRequest:
    """The same question by another tenant, so that nothing of it is cached."""
    return question(plan=parts, exact_lengths=True, tenant=f"tenant-{next(_tenants)}")


async def ended(run: Watched, *numbers: int) -> None:
    await run.until(lambda: {event.number for event in run.of(NodeFinished)} >= set(numbers))


async def without(make_scheduler: MakeScheduler, pool: DecoderPool) -> dict[int, str]:
    """The texts of the plan, nothing computed in advance."""
    return texts(await collect(make_scheduler(pool), asked()))


async def test_a_blocked_part_finds_what_was_known_of_its_prompt(
    make_scheduler: MakeScheduler, pool: GatedPool, recorder: MemoryRecorder
) -> None:
    plain = await without(make_scheduler, pool)
    assert pool.warm == [], "it is off unless asked for"
    scheduler = make_scheduler(pool, recorder=recorder, warming=True)
    pool.gates[3] = asyncio.Event()
    async with watching(scheduler, asked()) as run:
        await ended(run, 1, 2)
        await until(lambda: recorder.total(table.WARMINGS, outcome="done"))
        pool.gates[3].set()
    name, warm = pool.warm[-1]
    _, last = next(found for found in reversed(pool.requests) if found[1].node == LAST)
    assert last.prompt.hashes[: len(warm.prompt.hashes)] == warm.prompt.hashes
    part = node(run.report, LAST)
    assert (part.replica, part.continues) == (name, 2)
    assert part.cached_tokens >= len(warm.prompt)
    assert part.predicted_cached_tokens == part.cached_tokens
    assert recorder.total(table.WARMED_TOKENS) > 60
    assert recorder.total(table.WARMED_REUSED) == recorder.total(table.WARMED_TOKENS)
    assert texts(run.events) == plain


async def test_a_wrong_guess_costs_nothing_but_itself(
    make_scheduler: MakeScheduler,
    pool: GatedPool,
    recorder: MemoryRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("plato.scheduling.placement.placement.LEAST_WARM", 4)
    # 1 is taken to be as long as 2 and 3, and is longer.
    parts = plan(None, 30, 30)
    plain = texts(await collect(make_scheduler(pool, node_max_tokens=150), asked(parts)))
    scheduler = make_scheduler(pool, recorder=recorder, node_max_tokens=150, warming=True)
    pool.gates[1] = asyncio.Event()
    async with watching(scheduler, asked(parts)) as run:
        await ended(run, 2, 3)
        await until(lambda: recorder.total(table.WARMINGS, outcome="done"))
        pool.gates[1].set()
    assert node(run.report, LAST).continues == 1
    assert recorder.total(table.WARMED_TOKENS) > 0
    assert recorder.total(table.WARMED_REUSED) == 0
    assert texts(run.events) == plain


async def test_a_part_that_is_ready_does_not_wait_for_it(
    make_scheduler: MakeScheduler, pool: GatedPool, recorder: MemoryRecorder
) -> None:
    scheduler = make_scheduler(pool, recorder=recorder, warming=True)
    pool.gates[3], pool.warm_gate = asyncio.Event(), asyncio.Event()
    async with watching(scheduler, asked()) as run:
        await ended(run, 1, 2)
        await until(lambda: pool.warm_live)
        pool.gates[3].set()
    assert recorder.totals(table.WARMINGS, "outcome") == {"cancelled": 1}
    assert pool.warm_live == 0


async def test_it_ends_with_its_run(
    make_scheduler: MakeScheduler, pool: GatedPool, recorder: MemoryRecorder
) -> None:
    scheduler = make_scheduler(pool, recorder=recorder, warming=True)
    pool.gates[3], pool.warm_gate = asyncio.Event(), asyncio.Event()
    request = asked()
    async with watching(scheduler, request) as run:
        await ended(run, 1, 2)
        await until(lambda: pool.warm_live)
        await scheduler.cancel(request.tenant, request.run)
    assert pool.warm_live == 0
    assert recorder.totals(table.WARMINGS, "outcome") == {"cancelled": 1}


async def test_a_decoder_that_dies_during_it_fails_no_run(
    make_scheduler: MakeScheduler, pool: GatedPool, recorder: MemoryRecorder
) -> None:
    plain = await without(make_scheduler, pool)
    scheduler = make_scheduler(pool, recorder=recorder, warming=True)
    pool.gates[3], pool.warm_gate = asyncio.Event(), asyncio.Event()
    async with watching(scheduler, asked()) as run:
        await ended(run, 1, 2)
        await until(lambda: pool.warm_live)
        pool.kill(pool.warm[-1][0])
        pool.warm_gate.set()
        await until(lambda: recorder.total(table.WARMINGS, outcome="failed"))
        pool.gates[3].set()
    assert texts(run.events) == plain
    assert recorder.total(table.WARMED_TOKENS) == 0


@pytest.mark.parametrize("error", [EngineBusyError("256 wait"), asyncio.CancelledError()])
async def test_a_decoder_that_refuses_it_fails_no_run(
    make_scheduler: MakeScheduler, pool: GatedPool, recorder: MemoryRecorder, error: Exception
) -> None:
    scheduler = make_scheduler(pool, recorder=recorder, warming=True)
    pool.gates[3], pool.warm_error = asyncio.Event(), error
    async with watching(scheduler, asked()) as run:
        await ended(run, 1, 2)
        await until(lambda: recorder.total(table.WARMINGS, outcome="failed"))
        pool.gates[3].set()
    assert recorder.totals(table.NODE_RETRIES, "reason") == {}


async def test_it_is_given_up_at_its_deadline(
    make_scheduler: MakeScheduler,
    pool: GatedPool,
    recorder: MemoryRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(warming, "WARM_DEADLINE_S", 0.05)
    scheduler = make_scheduler(pool, recorder=recorder, warming=True)
    pool.gates[3], pool.warm_gate = asyncio.Event(), asyncio.Event()
    async with watching(scheduler, asked()) as run:
        await ended(run, 1, 2)
        await until(lambda: recorder.total(table.WARMINGS, outcome="failed"))
        assert pool.warm_live == 0
        pool.gates[3].set()
    assert finished(run.events)
