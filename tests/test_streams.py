"""Heartbeats in a stream while nothing comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
import pytest

from plato.streams import with_heartbeat

INTERVAL_S = 0.02


class Source:
    """Numbers, one for each release of `more`; notes whether it was closed."""

    def __init__(self) -> None:
        self.more = asyncio.Semaphore(0)
        self.closed = False
        self.error: Exception | None = None

    async def items(self) -> AsyncGenerator[int]:
        number = 0
        try:
            while True:
                await self.more.acquire()
                if self.error is not None:
                    raise self.error
                yield number
                number += 1
                if number == 3:
                    return
        finally:
            self.closed = True


async def test_the_items_come_in_order_and_end() -> None:
    source = Source()
    for _ in range(3):
        source.more.release()
    assert [item async for item in with_heartbeat(source.items(), 5.0)] == [0, 1, 2]
    assert source.closed


async def test_heartbeats_come_while_nothing_else_does_and_no_item_is_lost() -> None:
    source = Source()
    seen = []
    async with aclosing(with_heartbeat(source.items(), INTERVAL_S)) as items:
        async for item in items:
            seen.append(item)
            if item is None and seen.count(None) % 3 == 0:
                source.more.release()
    assert [item for item in seen if item is not None] == [0, 1, 2]
    assert seen.count(None) >= 9
    assert source.closed


async def test_closing_it_in_mid_wait_closes_the_source() -> None:
    source = Source()
    async with aclosing(with_heartbeat(source.items(), INTERVAL_S)) as items:
        assert await anext(items) is None
    assert source.closed


async def test_a_scope_that_cancels_again_and_again_waits_for_the_source() -> None:
    closed = []

    async def slow_to_end() -> AsyncGenerator[int]:
        try:
            await asyncio.Event().wait()
            yield 1
        finally:
            await asyncio.sleep(0.02)
            closed.append(True)

    with anyio.CancelScope() as scope:
        asyncio.get_running_loop().call_later(0.02, scope.cancel)
        async with aclosing(with_heartbeat(slow_to_end(), 5.0)) as items:
            await anext(items)
    assert scope.cancelled_caught
    assert closed


async def test_what_the_source_raises_goes_through() -> None:
    source = Source()
    source.error = ValueError("broken")
    source.more.release()
    with pytest.raises(ValueError, match="broken"):
        async for _ in with_heartbeat(source.items(), 5.0):
            pass
