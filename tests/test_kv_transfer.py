"""A request that needs a prefix in flight from another engine waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from plato.engine import KVPiece, Prompt, Segment
from plato.engine.torch import TorchEngine, TorchEngineConfig
from plato.kv_transfer import KVTransfer
from tests.engine.helpers import ask, collect, some_tokens

SHARED = Segment(some_tokens(120))
FIRST = Prompt((SHARED, Segment(some_tokens(5, 1))), "acme")
SECOND = Prompt((SHARED, Segment(some_tokens(5, 2))), "acme")
STEP_ROOM = 4 << 20


@pytest.fixture
async def engines(tiny_model_folder: str) -> AsyncIterator[tuple[TorchEngine, TorchEngine]]:
    config = TorchEngineConfig(
        tiny_model_folder, device="cpu", dtype="float32", kv_budget_bytes=STEP_ROOM
    )
    pair = (TorchEngine(config), TorchEngine(config))
    yield pair
    for engine in pair:
        await engine.close()


async def test_a_sibling_waits_for_the_prefix_and_finds_it(
    engines: tuple[TorchEngine, TorchEngine],
) -> None:
    source, target = engines
    await collect(source, ask(*FIRST.segments, tenant="acme", max_tokens=1))
    held = len(SHARED.tokens)
    transfer, sent = KVTransfer(target), asyncio.Event()

    async def slow(prompt: Prompt, start: int) -> KVPiece | None:
        await sent.wait()
        return await source.export_kv(prompt, start)

    first = ask(*FIRST.segments, tenant="acme", max_tokens=1, source="s", source_tokens=held)
    second = ask(*SECOND.segments, tenant="acme", max_tokens=1)
    other = ask(Segment(some_tokens(9, 7)), tenant="acme", max_tokens=1)
    getting = asyncio.create_task(transfer.before(first, slow))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(transfer.before(second, None))
    async with asyncio.timeout(30):
        assert await transfer.before(other, None) == 0
        await asyncio.sleep(0.05)
        assert not waiting.done()
        sent.set()
        assert await getting >= held
        assert await waiting == 0
    assert target.cached_prefix(SECOND) == held


async def test_a_transfer_that_times_out_blocks_no_request(
    engines: tuple[TorchEngine, TorchEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plato.kv_transfer.TRANSFER_DEADLINE_S", 0.1)
    _, target = engines
    transfer = KVTransfer(target)

    async def never(prompt: Prompt, start: int) -> KVPiece | None:
        await asyncio.Event().wait()
        return None

    first = ask(*FIRST.segments, tenant="acme", max_tokens=1, source="s", source_tokens=120)
    second = ask(*SECOND.segments, tenant="acme", max_tokens=1, source="s", source_tokens=120)
    async with asyncio.timeout(30):
        assert await asyncio.gather(
            transfer.before(first, never), transfer.before(second, never)
        ) == [0, 0]
    assert not transfer._in_flight
