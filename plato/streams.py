"""Heartbeats in streams: a stopped process, or a machine that is gone, closes no connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def with_heartbeat(
    items: AsyncGenerator[T], interval_s: float | Callable[[], float | None]
) -> AsyncGenerator[T | None]:
    """The items, and `None` whenever `interval_s` has passed without one; asked before each wait.

    Each item is awaited in a task of its own, so that waiting for it can be interrupted without
    cancelling it. Closing closes `items`.
    """
    next_item: asyncio.Task[tuple[T] | None] | None = None
    async with aclosing(items):
        try:
            while True:
                next_item = next_item or asyncio.create_task(_next(items))
                timeout = interval_s() if callable(interval_s) else interval_s
                done, _ = await asyncio.wait([next_item], timeout=timeout)
                if not done:
                    yield None
                    continue
                item, next_item = next_item.result(), None
                if item is None:
                    return
                yield item[0]
        finally:
            if next_item is not None:
                next_item.cancel()
                await asyncio.wait([next_item])


async def _next(items: AsyncGenerator[T]) -> tuple[T] | None:
    """The next item, in a tuple; `None` at the end."""
    try:
        return (await anext(items),)
    except StopAsyncIteration:
        return None
