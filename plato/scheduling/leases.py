"""This scheduler's leases on decoder replicas: kept alive, and a detector of silent replicas."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from plato.engine import DecoderPool, Lease

logger = logging.getLogger(__name__)

RENEWALS = 3
"""Renewals within the life of a lease."""

OnLost = Callable[[], None]


def being_cancelled() -> bool:
    """Whether somebody has cancelled the current task.

    If not, a `CancelledError` in it comes from elsewhere (a replica that shuts down), and a task
    group would take the task that ends with it for one that ended well.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _Holding:
    """The lease at one replica, while it has a live sequence of ours."""

    def __init__(self) -> None:
        self.watchers: list[OnLost] = []
        """One for each live sequence."""
        self.task: asyncio.Task[None] | None = None


class LeaseKeeper:
    """Renews one lease for each replica that decodes something for this process.

    Renewal needs this process's event loop to turn: when the process dies or hangs, decoders stop
    hearing from it and cancel its sequences. Conversely, a replica that answers no renewal for
    `silence_s` counts as lost, and whoever waits for it is told: a stopped process, or a machine
    that is gone, closes no connection. A task exists for each replica with a live sequence.
    """

    def __init__(
        self, pool: DecoderPool, owner: str, ttl_s: float, *, silence_s: float | None = None
    ) -> None:
        self._pool = pool
        self._owner = owner
        self._ttl_s = ttl_s
        self.lease = Lease(owner, ttl_s)
        """What sequences carry."""
        self._silence_s = silence_s if silence_s is not None else 1.5 * ttl_s
        self._holdings: dict[str, _Holding] = {}
        """By replica; only those with a live sequence."""
        self.silences = 0
        """Times a replica counted as lost."""

    @contextmanager
    def holding(self, replica: str, on_lost: OnLost = lambda: None) -> Iterator[None]:
        """Renew the lease at `replica` while the context lasts.

        `on_lost` is called when the replica has been silent for `silence_s`, and again after every
        further `silence_s`.
        """
        holding = self._holdings.setdefault(replica, _Holding())
        holding.watchers.append(on_lost)
        if holding.task is None:
            holding.task = asyncio.create_task(
                self._keep(replica, holding), name=f"lease-{replica}"
            )
        try:
            yield
        finally:
            holding.watchers.remove(on_lost)
            if not holding.watchers and self._holdings.get(replica) is holding:
                del self._holdings[replica]
                holding.task.cancel()

    async def close(self) -> None:
        """Stop renewing."""
        tasks = [holding.task for holding in self._holdings.values() if holding.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _keep(self, replica: str, holding: _Holding) -> None:
        interval = self._ttl_s / RENEWALS
        heard = time.monotonic()
        while True:
            began = time.monotonic()
            # A late renewal may still be answered: giving up on it early would mistake a slow
            # replica for a silent one.
            if await self._renew(replica, max(interval, heard + self._silence_s - began)):
                heard = time.monotonic()
            elif time.monotonic() - heard >= self._silence_s:
                self.silences += 1
                logger.warning(
                    "decoder %s silent for %g s, treating it as lost", replica, self._silence_s
                )
                heard = time.monotonic()
                for on_lost in tuple(holding.watchers):
                    on_lost()
            await asyncio.sleep(max(0.0, began + interval - time.monotonic()))

    async def _renew(self, replica: str, deadline_s: float) -> bool:
        try:
            async with asyncio.timeout(deadline_s):
                await self._pool.renew(self._owner, self._ttl_s, replica)
        except (Exception, asyncio.CancelledError) as error:
            if being_cancelled():
                raise
            # One lost renewal is harmless; a dead replica shows in the streams themselves.
            logger.info("lease on %s not renewed: %s", replica, error or type(error).__name__)
            return False
        return True
