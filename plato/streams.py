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
    waiting: asyncio.Task[tuple[T] | None] | None = None
    async with aclosing(items):
        try:
            while True:
                waiting = waiting or asyncio.create_task(next_item(items))
                timeout = interval_s() if callable(interval_s) else interval_s
                done, _ = await asyncio.wait([waiting], timeout=timeout)
                if not done:
                    yield None
                    continue
                item, waiting = waiting.result(), None
                if item is None:
                    return
                yield item[0]
        finally:
            if waiting is not None:
                await _end(waiting)


async def _end(waiting: asyncio.Task[object]) -> None:
    """Cancel a task, and wait for its end also if this task is cancelled again meanwhile.

    Scopes of anyio, as around responses, do that at every wait.
    """
    waiting.cancel()
    cancelled: asyncio.CancelledError | None = None
    while not waiting.done():
        try:
            await asyncio.wait([waiting])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def next_item(items: AsyncGenerator[T]) -> tuple[T] | None:
    """The next item, in a tuple; `None` at the end."""
    try:
        return (await anext(items),)
    except StopAsyncIteration:
        return None
