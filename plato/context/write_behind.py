"""Background writes to a context store."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

Write = Callable[[], Awaitable[object]]


class WriteBehind:
    """A bounded queue of writes to a context store, and the one task that drains it.

    Submitting never waits and never raises. Writes reach the store in order, one at a time. If
    `capacity` writes are queued, the oldest is dropped: the newest state of a run matters most. The
    task exists only while there is something to write.
    """

    def __init__(self, *, capacity: int = 1024) -> None:
        self._capacity = capacity
        self._queue: deque[Write] = deque()
        """Bounded by `capacity`, in `submit`."""
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._dropped = 0

    @property
    def pending(self) -> int:
        """Queued writes, not counting the one in progress."""
        return len(self._queue)

    @property
    def dropped(self) -> int:
        """Writes dropped because the queue was full or closed, or the write raised an error."""
        return self._dropped

    def submit(self, write: Write) -> None:
        """Queue a write. Must be called in the event loop."""
        if self._closed:
            self._dropped += 1
            return
        if len(self._queue) >= self._capacity:
            self._queue.popleft()
            self._dropped += 1
        self._queue.append(write)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain(), name="context-write-behind")

    async def close(self, deadline_s: float = 1.0) -> None:
        """Write what is queued, for at most `deadline_s`, and drop the rest. Idempotent."""
        self._closed = True
        if self._task is not None:
            _, late = await asyncio.wait((self._task,), timeout=deadline_s)
            for task in late:
                task.cancel()
                await asyncio.wait((task,), timeout=deadline_s)
        self._dropped += len(self._queue)
        self._queue.clear()

    async def _drain(self) -> None:
        while self._queue:
            write = self._queue.popleft()
            try:
                await write()
            except Exception:
                self._dropped += 1
                logger.exception("write to the context store failed")
            except asyncio.CancelledError:
                self._dropped += 1
                raise
