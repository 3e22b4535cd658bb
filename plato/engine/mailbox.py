"""Chunks from the engine's thread to an asyncio consumer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import replace

from plato.engine.protocol import Chunk


class Mailbox:
    """Holds what a consumer has not fetched yet, as one chunk.

    Bounded: chunks of a sequence are merged into one, and a sequence has a token budget. Chunks
    that can wait do not wake the event loop: with two cores, every wake-up takes CPU time from
    the engine in the middle of a step.
    """

    def __init__(self, group_s: float = 0.0) -> None:
        """Create it in the consumer's event loop; `group_s` as in `GenerateRequest`."""
        self._loop = asyncio.get_running_loop()
        self._group_s = group_s
        self._lock = threading.Lock()
        self._chunk: Chunk | None = None
        self._error: BaseException | None = None
        self._arrived = asyncio.Event()
        self._awaited = False
        """Whether the next item wakes the consumer."""
        self._fetched = False

    def put(self, item: Chunk | BaseException) -> None:
        """Add a chunk, or the error that ends the stream. From any thread."""
        with self._lock:
            if isinstance(item, BaseException):
                self._error = item
            else:
                self._chunk = item if self._chunk is None else merge(self._chunk, item)
            wake = self._awaited or self._urgent
            self._awaited = False
        if wake:
            # A closed loop has no consumers.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._arrived.set)

    async def get(self) -> Chunk:
        """Wait for the next chunk; all but the first wait for a tick, to group tokens.

        Ticks are the multiples of `group_s` on the loop's clock: sequences grow together, so one
        wake-up serves all of them, here and wherever their chunks arrive. The end of a line and the
        end of the stream do not wait. Raises the error that ended the stream.
        """
        if self._fetched and self._group_s > 0:
            await self._grow()
        while True:
            with self._lock:
                chunk, self._chunk = self._chunk, None
                if chunk is not None:
                    self._fetched = True
                    return chunk
                if self._error is not None:
                    raise self._error
                self._awaited = True
                self._arrived.clear()
            await self._arrived.wait()

    async def _grow(self) -> None:
        with self._lock:
            if self._urgent:
                return
            self._arrived.clear()
        # The tick after the nearest one: a timer may fire shortly before or after its tick.
        tick = round(self._loop.time() / self._group_s) + 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(tick * self._group_s):
                await self._arrived.wait()

    @property
    def _urgent(self) -> bool:
        """Whether the pending chunk should be sent at once."""
        if self._error is not None:
            return True
        return self._chunk is not None and (
            self._chunk.finish is not None or "\n" in self._chunk.text
        )


def merge(left: Chunk, right: Chunk) -> Chunk:
    """Merge two consecutive chunks."""
    return replace(
        right,
        offset=left.offset,
        tokens=left.tokens + right.tokens,
        text=left.text + right.text,
        scores=left.scores or right.scores,
    )
