"""An event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, TypeVar

from plato.streams import next_item

CALL_S = 30.0
SETTLE_S = 1.0
JOIN_S = 10.0

T = TypeVar("T")


class LoopThread:
    """Runs what other threads and their event loops hand to it."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._closing: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Call `function` there, unless the loop has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`, which has a deadline, there, and wait for it in this thread.

        An interrupt of this thread cancels it, and is raised when it has ended. Raises
        `RuntimeError` after `end`.
        """
        if self._loop.is_closed():
            work.close()
            raise RuntimeError(f"{self._thread.name} is closed; open another one")
        ended = threading.Event()

        async def watched() -> T:
            try:
                return await work
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(watched(), self._loop)
        try:
            return future.result()
        except BaseException:
            if future.cancel():
                ended.wait(JOIN_S)
            raise

    def iterate(self, items: AsyncGenerator[T]) -> Generator[T]:
        """The items, each awaited there in a task of its own; closing closes `items`."""
        try:
            while (item := self.run(next_item(items))) is not None:
                yield item[0]
        finally:
            if threading.current_thread() is self._thread:
                # The garbage collector closes it, for which its own thread cannot wait.
                task = self._loop.create_task(items.aclose())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            else:
                self.run(items.aclose())

    async def call(self, function: Callable[[], T]) -> T:
        """Call `function` there, and wait for its result in the caller's loop."""

        async def work() -> T:
            return function()

        async with asyncio.timeout(CALL_S):
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), self._loop))

    def end(self) -> None:
        """End the loop, whose work has ended. Idempotent."""
        if self._thread.is_alive():
            self.run(_settle())
        self.post(self._loop.stop)
        self._thread.join(JOIN_S)
        if not self._thread.is_alive():
            self._loop.close()


async def _settle() -> None:
    """Let generators that nobody closed end: the event loop closes them in tasks of their own."""
    await asyncio.get_running_loop().shutdown_asyncgens()
    current = asyncio.current_task()
    if others := [task for task in asyncio.all_tasks() if task is not current]:
        await asyncio.wait(others, timeout=SETTLE_S)
