"""The end of a server: no new questions; answers that have begun end within a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import TypeVar

from plato.errors import UnavailableError
from plato.tasks import Interruption

LAST_WORDS_S = 2.0
"""How long the clients of answers that are cut off have to take the error event."""

T = TypeVar("T")


class Drain:
    """Counts the answers of one API, and ends them when the server stops."""

    def __init__(self) -> None:
        self._ends_at: float | None = None
        """When answers are cut off, by the clock of the event loop; set while draining."""
        self._cut = False
        self._answers: set[Interruption] = set()
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

    @contextmanager
    def answering(self) -> Iterator[Interruption]:
        """An answer, whose waits are interrupted by `UnavailableError` when it is cut off."""
        answer = Interruption()
        self._answers.add(answer)
        self._idle.clear()
        if self._cut:
            _cut_off(answer)
        try:
            yield answer
        finally:
            self._answers.remove(answer)
            if not self._answers:
                self._idle.set()

    async def watch(self, items: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """The items of an answer. Raises `UnavailableError` when it is cut off."""
        with self.answering() as answer:
            async with aclosing(items):
                while True:
                    try:
                        with answer:
                            item = await anext(items)
                    except StopAsyncIteration:
                        return
                    yield item

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
        for answer in self._answers:
            _cut_off(answer)


def _cut_off(answer: Interruption) -> None:
    error = UnavailableError(
        "the server stopped before the end of the answer; send the question again",
        retry_after_s=1.0,
    )
    answer.interrupt(error)
