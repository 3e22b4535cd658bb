"""The end of a server: no new questions; answers that have begun end within a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TypeVar

from plato.errors import UnavailableError
from plato.tasks import expire

LAST_WORDS_S = 2.0
"""How long the clients of answers that are cut off have to take the error event."""

T = TypeVar("T")


class Drain:
    """Counts the answers of one API, and ends them when the server stops."""

    def __init__(self) -> None:
        self._ends_at: float | None = None
        """When answers are cut off, by the clock of the event loop; set while draining."""
        self._cut = False
        self._waits: set[asyncio.Timeout] = set()
        """One per answer that waits for an event."""
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def refuse_new(self) -> None:
        """Raise `UnavailableError` if the server is stopping."""
        if self._ends_at is not None:
            left_s = self._ends_at - asyncio.get_running_loop().time()
            raise UnavailableError(
                "the server is stopping; send the question again in a moment",
                retry_after_s=max(1.0, left_s),
            )

    async def watch(self, items: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """The items of an answer. Raises `UnavailableError` when it is cut off."""
        self._open += 1
        self._idle.clear()
        try:
            async with aclosing(items):
                while True:
                    try:
                        yield await self._next(items)
                    except StopAsyncIteration:
                        return
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()

    async def finish(self, within_s: float) -> None:
        """Refuse new questions, and wait until all answers have ended, or cut them off."""
        if self._ends_at is None:
            self._ends_at = asyncio.get_running_loop().time() + within_s
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._ends_at):
                await self._idle.wait()
        self.cut_off()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._idle.wait()

    def cut_off(self) -> None:
        """End all answers now, with an error."""
        self._cut = True
        for wait in self._waits:
            expire(wait)

    async def _next(self, items: AsyncGenerator[T]) -> T:
        try:
            async with asyncio.timeout(0 if self._cut else None) as wait:
                self._waits.add(wait)
                try:
                    return await anext(items)
                finally:
                    self._waits.remove(wait)
        except TimeoutError as error:
            if not wait.expired():
                raise
            raise UnavailableError(
                "the server stopped before the end of the answer; send the question again",
                retry_after_s=1.0,
            ) from error
