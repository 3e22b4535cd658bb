"""Streams between processes: signs of life from one end, and ears for them at the other.

A process that is stopped, or a machine that is gone, closes no connection: only silence tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Generic, Self, TypeVar

from plato.errors import UnavailableError

T = TypeVar("T")


async def beating(items: AsyncGenerator[T], interval_s: float) -> AsyncGenerator[T | None]:
    """The items, and `None` whenever `interval_s` has passed without one.

    Each item is awaited in a task of its own, so that waiting for it can be interrupted without
    cancelling it. Closing closes `items`.
    """
    coming: asyncio.Task[tuple[T] | None] | None = None
    async with aclosing(items):
        try:
            while True:
                coming = coming or asyncio.create_task(_next(items))
                done, _ = await asyncio.wait([coming], timeout=interval_s)
                if not done:
                    yield None
                    continue
                item, coming = coming.result(), None
                if item is None:
                    return
                yield item[0]
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait([coming])


async def listening(beats: AsyncGenerator[T | None], silence_s: float) -> AsyncGenerator[T]:
    """The items of a beating stream. Raises `UnavailableError` after `silence_s` of silence.

    The time that the consumer takes for an item does not count.
    """
    async with aclosing(beats):
        while True:
            try:
                # Around one step only: while this generator is suspended in a `yield`, a timeout
                # would hit whatever its consumer waits for.
                async with asyncio.timeout(silence_s) as timer:
                    item = await _next(beats)
            except TimeoutError as error:
                if not timer.expired():
                    raise
                raise UnavailableError(
                    f"the other side has been silent for {silence_s:g} s", retry_after_s=1.0
                ) from error
            if item is None:
                return
            if item[0] is not None:
                yield item[0]


class SilenceError(Exception):
    """A stream was given up on, because the other side is taken to be gone."""


class Attended(Generic[T]):
    """A stream whose next item can be given up on from outside.

    Only waiting for an item is ever interrupted, never what is done with one: an item that has
    come is dealt with as a whole.
    """

    def __init__(self, items: AsyncGenerator[T], *, until: float | None = None) -> None:
        """`until` is a time of the event loop after which waiting raises `TimeoutError`."""
        self._items = items
        self._until = until
        self._given_up = False
        self._timer: asyncio.Timeout | None = None

    def give_up(self) -> None:
        """Have the wait for the next item, now or later, raise `SilenceError`."""
        self._given_up = True
        if self._timer is not None and not self._timer.expired():
            self._timer.reschedule(asyncio.get_running_loop().time())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        item = await self._attend()
        if item is None:
            raise StopAsyncIteration
        return item[0]

    async def _attend(self) -> tuple[T] | None:
        if self._given_up:
            raise SilenceError
        try:
            async with asyncio.timeout_at(self._until) as self._timer:
                return await _next(self._items)
        except TimeoutError as error:
            if self._given_up:
                raise SilenceError from error
            raise
        finally:
            self._timer = None


async def _next(items: AsyncGenerator[T]) -> tuple[T] | None:
    """The next item, in a tuple; `None` at the end."""
    try:
        return (await anext(items),)
    except StopAsyncIteration:
        return None
