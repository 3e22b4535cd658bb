"""Places for sequences at a server."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from plato.engine.errors import EngineBusyError


class Slots:
    """A fixed number of places, given in order of rank; the queue for them is bounded."""

    def __init__(self, places: int, max_waiting: int) -> None:
        self._free = places
        self._max_waiting = max_waiting
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []
        """A heap; at most `max_waiting` entries."""
        self._arrivals = itertools.count()
        self.running = 0

    @property
    def waiting(self) -> int:
        """Sequences in the queue."""
        return len(self._queue)

    @asynccontextmanager
    async def place(self, rank: int) -> AsyncGenerator[None]:
        """Hold a place; lower ranks come first, and among equals the first to arrive.

        Raises `EngineBusyError` if too many wait already.
        """
        if self._free:
            self._free -= 1
        else:
            await self._wait(rank)
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._give()

    async def _wait(self, rank: int) -> None:
        """Wait for a place that another one passes on."""
        if self.waiting >= self._max_waiting:
            raise EngineBusyError(f"{self.waiting} sequences are waiting; try again later")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (rank, next(self._arrivals), turn)
        heapq.heappush(self._queue, entry)
        try:
            await turn
        except asyncio.CancelledError:
            if entry in self._queue:
                self._queue.remove(entry)
                heapq.heapify(self._queue)
            else:
                self._give()
            raise

    def _give(self) -> None:
        """Pass a place on to the first one that waits."""
        if self._queue:
            _, _, turn = heapq.heappop(self._queue)
            # Whoever was cancelled, and does not know yet, passes the place on.
            if not turn.cancelled():
                turn.set_result(None)
        else:
            self._free += 1
