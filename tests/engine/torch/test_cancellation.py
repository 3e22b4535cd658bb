"""Sequences end when cancelled or unleased, and consumers of a failed engine get an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from plato.engine import Chunk, EngineClosedError, FinishReason, GenerateRequest, Lease
from plato.engine.torch import TorchEngine
from tests.clock import Clock
from tests.engine.conftest import MakeCore, tiny_config
from tests.engine.helpers import Stream, ask, collect, drain, some_tokens
from tests.engine.waiting import until

LONG = 480
"""Tokens that take far longer to decode than any of these tests."""


def long(**fields: Any) -> GenerateRequest:
    return ask(some_tokens(20), max_tokens=LONG, **fields)


async def started(stream: AsyncIterator[Chunk]) -> None:
    """Consume until the sequence decodes."""
    while not (await anext(stream)).tokens:
        pass


async def test_closing_the_iterator_cancels(engine: TorchEngine) -> None:
    stream = engine.generate(long())
    await started(stream)
    assert engine.stats().live == (("run", 1),)
    await stream.aclose()
    await until(lambda: not engine.stats().live)


async def test_closing_right_after_the_acknowledgement_cancels(engine: TorchEngine) -> None:
    stream = engine.generate(long())
    await anext(stream)
    await stream.aclose()
    await until(lambda: not engine.stats().live)


async def test_cancelling_the_consuming_task_cancels(engine: TorchEngine) -> None:
    task = asyncio.create_task(collect(engine, long()))
    await until(lambda: engine.stats().load.running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not engine.stats().live)


async def test_cancel_ends_a_run_and_no_other(engine: TorchEngine) -> None:
    tasks = [
        asyncio.create_task(collect(engine, long(run_id=run, node=node)))
        for run, node in (("a", 1), ("a", 2), ("b", 1))
    ]
    await until(lambda: engine.stats().load.running == 3)
    engine.cancel("a", 2)
    assert (await tasks[1]).finish is FinishReason.CANCELLED
    assert set(engine.stats().live) == {("a", 1), ("b", 1)}
    engine.cancel("a")
    assert (await tasks[0]).finish is FinishReason.CANCELLED
    assert engine.stats().live == (("b", 1),)
    engine.cancel("b")
    stream = await tasks[2]
    assert stream.finish is FinishReason.CANCELLED
    assert 0 < len(stream.tokens) < LONG


async def test_a_lease_that_runs_out_cancels(engine: TorchEngine) -> None:
    stream = await collect(engine, long(lease=Lease("gone", 0.05)))
    assert stream.finish is FinishReason.CANCELLED
    assert engine.stats().live == ()


@pytest.mark.slow
async def test_a_lease_that_is_renewed_does_not(engine: TorchEngine) -> None:
    lease = Lease("here", 0.3)
    task = asyncio.create_task(collect(engine, long(lease=lease)))
    await asyncio.sleep(0)
    engine.renew("here", 60.0)
    assert (await task).finish is FinishReason.LENGTH


class TestLeases:
    def test_of_one_owner_are_renewed_together(self, make_core: MakeCore, clock: Clock) -> None:
        core = make_core()
        streams = {}
        for node, owner in enumerate(["a", "a", "b", None]):
            streams[node] = Stream()
            lease = Lease(owner, 1.0) if owner else None
            core.add(long(node=node, lease=lease), streams[node])
        core.step()
        clock.now += 0.9
        core.renew("a", 1.0)
        clock.now += 0.2
        core.expire()
        assert [s.finish for s in streams.values()] == [None, None, FinishReason.CANCELLED, None]
        core.check_integrity()
        clock.now += 1.0
        core.expire()
        assert core.live == (("run", 3),)
        core.cancel(lambda sequence: True)
        core.check_integrity()

    def test_end_waiting_sequences_too(self, make_core: MakeCore, clock: Clock) -> None:
        core = make_core(max_sequences=1)
        running, waiting = Stream(), Stream()
        core.add(ask(some_tokens(5)), running)
        core.add(ask(some_tokens(5), lease=Lease("a", 1.0)), waiting)
        core.step()
        clock.now += 1.1
        core.expire()
        assert waiting.finish is FinishReason.CANCELLED
        drain(core)
        assert running.finish is FinishReason.LENGTH

    def test_are_forgotten_with_the_last_sequence(self, make_core: MakeCore) -> None:
        core = make_core()
        for owner in ("a", "b"):
            core.add(ask(some_tokens(5), lease=Lease(owner, 1.0)), Stream())
        drain(core)
        core.renew("a", 1.0)
        assert not core._leases.owners


class TestEnd:
    @pytest.fixture
    async def own_engine(self, tiny_folder: str) -> AsyncIterator[TorchEngine]:
        engine = await asyncio.to_thread(TorchEngine, tiny_config(tiny_folder, max_sequences=2))
        yield engine
        await engine.close()

    async def test_death_fails_every_consumer(
        self, own_engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tasks = [asyncio.create_task(collect(own_engine, long(node=i))) for i in range(4)]
        await until(lambda: len(own_engine.stats().live) == 4)

        def step() -> None:
            raise RuntimeError("the accelerator fell off")

        core = await own_engine.inspect(lambda core: core)
        monkeypatch.setattr(core, "step", step)
        async with asyncio.timeout(30):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            assert isinstance(result, EngineClosedError)
            assert "the accelerator fell off" in str(result)
        with pytest.raises(EngineClosedError, match="failed"):
            own_engine.stats()
        with pytest.raises(EngineClosedError, match="failed"):
            await collect(own_engine, long())

    async def test_a_command_that_comes_too_late_hides_nothing(
        self, own_engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A core that failed within a step may fail to cancel, too.
        task = asyncio.create_task(collect(own_engine, long()))
        await until(lambda: own_engine.stats().load.running)

        def cancel(*_: object) -> None:
            raise RuntimeError("cannot cancel")

        def step() -> None:
            own_engine.cancel("run")
            raise RuntimeError("broken")

        core = await own_engine.inspect(lambda core: core)
        monkeypatch.setattr(core, "cancel", cancel)
        monkeypatch.setattr(core, "step", step)
        async with asyncio.timeout(30):
            with pytest.raises(EngineClosedError, match="broken"):
                await task

    async def test_close_ends_waiting_consumers(self, own_engine: TorchEngine) -> None:
        tasks = [asyncio.create_task(collect(own_engine, long(node=i))) for i in range(4)]
        await until(lambda: len(own_engine.stats().live) == 4)
        async with asyncio.timeout(30):
            await own_engine.close()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, EngineClosedError) for result in results)
        await own_engine.close()
        with pytest.raises(EngineClosedError, match="shutting down"):
            await collect(own_engine, long())


def test_a_consumer_whose_event_loop_is_gone_does_not_kill_the_engine(
    shared_engine: TorchEngine,
) -> None:
    async def leave() -> AsyncIterator[Chunk]:
        stream = shared_engine.generate(long())
        await started(stream)
        return stream

    loop = asyncio.new_event_loop()
    stream = loop.run_until_complete(leave())
    loop.close()

    async def another() -> None:
        assert (await collect(shared_engine, ask(some_tokens(5)))).finish is FinishReason.LENGTH
        await until(lambda: not shared_engine.stats().live, 30)

    asyncio.run(another())
    del stream
