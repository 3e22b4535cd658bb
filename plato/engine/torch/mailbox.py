"""Chunks from the engine's thread to an asyncio consumer."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

from plato.engine.protocol import Chunk


class Mailbox:
    """Holds what a consumer has not fetched yet, as one chunk.

    Bounded by nature: waiting chunks of one sequence are merged into one, and a sequence has a
    token budget. All methods run in the consumer's event loop.
    """

    def __init__(self) -> None:
        self._chunk: Chunk | None = None
        self._error: BaseException | None = None
        self._arrived = asyncio.Event()
        self._ended = asyncio.Event()

    def put(self, item: Chunk | BaseException) -> None:
        """Add a chunk, or the error that ends the stream."""
        if isinstance(item, BaseException):
            self._error = item
            self._ended.set()
        else:
            self._chunk = item if self._chunk is None else merge(self._chunk, item)
            if item.finish is not None:
                self._ended.set()
        self._arrived.set()

    async def get(self, pause_s: float = 0.0) -> Chunk:
        """Wait for the next chunk, and let it grow for `pause_s` before, unless the stream ends.

        Raises the error that ended the stream.
        """
        if pause_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._ended.wait()
        await self._arrived.wait()
        self._arrived.clear()
        if self._chunk is not None:
            chunk, self._chunk = self._chunk, None
            if self._error is not None:
                self._arrived.set()
            return chunk
        assert self._error is not None
        raise self._error


def merge(left: Chunk, right: Chunk) -> Chunk:
    """One chunk for two that follow each other."""
    return replace(
        right,
        offset=left.offset,
        tokens=left.tokens + right.tokens,
        text=left.text + right.text,
        first=left.first or right.first,
    )
