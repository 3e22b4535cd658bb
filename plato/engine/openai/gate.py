"""The first of several siblings computes what they share; the others wait for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager


class LeaderGate:
    """For servers that share a prefix only once it is computed (`PrefixSharing.COMPUTED`)."""

    def __init__(self, is_cached: Callable[[bytes], bool], patience_s: float) -> None:
        """`is_cached` tells by its chained hash whether a prefix needs no computing."""
        self._is_cached = is_cached
        self._patience_s = patience_s
        self._leading: dict[bytes, asyncio.Event] = {}
        """By the chained hashes that a sequence is computing; bounded by the live sequences."""

    @asynccontextmanager
    async def lead(self, chains: Sequence[bytes]) -> AsyncGenerator[Callable[[], None]]:
        """Wait until nobody else computes a prefix of a prompt, at most `patience_s`.

        `chains` are the chained hashes of its prefixes, the shortest first. Call what it yields
        when the prompt is computed. Leaving has the same effect, so a leader
        that fails is followed by the next one.
        """
        # Computing a prefix twice is better than waiting for ever.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience_s):
                while (leader := self._leader(chains)) is not None:
                    await leader.wait()
        computed = asyncio.Event()
        own = [
            chain for chain in chains if chain not in self._leading and not self._is_cached(chain)
        ]
        self._leading.update(dict.fromkeys(own, computed))

        def release() -> None:
            for chain in own:
                self._leading.pop(chain, None)
            own.clear()
            computed.set()

        try:
            yield release
        finally:
            release()

    def _leader(self, chains: Sequence[bytes]) -> asyncio.Event | None:
        """Of the longest prefix that another sequence computes."""
        for chain in reversed(chains):
            if chain in self._leading:
                return self._leading[chain]
        return None
