"""Keeps the scheduler's leases on decoder replicas alive."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from plato.scheduling.protocol import DecoderPool

logger = logging.getLogger(__name__)


class LeaseKeeper:
    """Renews one lease for each replica that decodes something for this process.

    Renewal needs this process's event loop to turn: when the process dies or hangs, decoders see
    silence and cancel its sequences. The task lives as long as there is something to renew.
    """

    def __init__(self, pool: DecoderPool, owner: str, ttl_s: float) -> None:
        self._pool = pool
        self._owner = owner
        self._ttl_s = ttl_s
        self._holding: Counter[str] = Counter()
        """Live sequences by replica; an entry goes when its count reaches zero."""
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def holding(self, replica: str) -> Iterator[None]:
        """Renew the lease at `replica` while the context lasts."""
        self._holding[replica] += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._renew_all(), name="lease-keeper")
        try:
            yield
        finally:
            self._holding[replica] -= 1
            if not self._holding[replica]:
                del self._holding[replica]

    async def close(self) -> None:
        """Stop renewing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _renew_all(self) -> None:
        interval = self._ttl_s / 3
        while self._holding:
            renewals = [self._renew(replica, interval) for replica in self._holding]
            # A renewal that is cancelled from outside must not end all the others.
            await asyncio.gather(*renewals, asyncio.sleep(interval), return_exceptions=True)

    async def _renew(self, replica: str, deadline_s: float) -> None:
        try:
            async with asyncio.timeout(deadline_s):
                await self._pool.renew(self._owner, self._ttl_s, replica)
        except Exception as error:
            # One lost renewal is harmless; a dead replica shows in the streams themselves.
            logger.warning("lease at %s not renewed: %s", replica, error or type(error).__name__)
