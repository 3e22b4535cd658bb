"""An event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

CALL_S = 30.0
JOIN_S = 10.0

T = TypeVar("T")


class LoopThread:
    """Runs what other threads and their event loops hand to it."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Call `function` there, unless the loop has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`, which has a deadline, there, and wait for it in this thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def call(self, function: Callable[[], T]) -> T:
        """Call `function` there, and wait for its result in the caller's loop."""

        async def work() -> T:
            return function()

        async with asyncio.timeout(CALL_S):
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), self._loop))

    def end(self) -> None:
        """End the loop, whose work has ended. Idempotent."""
        self.post(self._loop.stop)
        self._thread.join(JOIN_S)
        if not self._thread.is_alive():
            self._loop.close()
