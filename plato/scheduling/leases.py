"""This scheduler's leases at decoder replicas; their renewal also detects silent replicas."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from plato.engine import DecoderPool, Lease
from plato.patience import Patience, loop_clock

logger = logging.getLogger(__name__)

RENEWALS = 3
"""Renewals per TTL."""
RENEWALS_PER_S = 50
"""Of all replicas together; with more of them leases are longer. A renewal is a call, which takes
more than a millisecond of this process's time, and every scheduler decodes on every replica."""
LATENESS = 2.0
"""Extension of a lease, in units of the recent lateness of this process."""
MAX_EXTENSION_S = 6.0
MAX_REPLICAS = 1024

OnLost = Callable[[], None]


def being_cancelled() -> bool:
    """Whether the current task is being cancelled.

    If not, a `CancelledError` in it comes from a replica that shuts down; a task group would take
    a task that raises it for a successful one.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _ReplicaLease:
    """The lease at one replica, while it has a live sequence of this scheduler."""

    def __init__(self) -> None:
        self.watchers: list[OnLost] = []
        """One per live sequence."""
        self.task: asyncio.Task[None] | None = None


class LeaseKeeper:
    """Renews one lease per replica that decodes for this process, in one task each.

    Renewal needs a running event loop: when this process dies or hangs, its leases expire and
    decoders cancel its sequences. Conversely, a replica that answers no renewal for `silence_s`
    counts as lost, because a stopped process or a lost machine closes no connection.
    """

    def __init__(
        self, pool: DecoderPool, owner: str, ttl_s: float, *, silence_s: float | None = None
    ) -> None:
        self._pool = pool
        self._owner = owner
        self._shortest_ttl_s = ttl_s
        self._silence_s = silence_s if silence_s is not None else 1.5 * ttl_s
        self._patience: dict[str, Patience] = {}
        """By replica; only of the most recent `MAX_REPLICAS`."""
        self._leases: dict[str, _ReplicaLease] = {}
        """By replica; only replicas with a live sequence."""
        self.silences = 0
        """Times a replica counted as lost."""

    @property
    def lease(self) -> Lease | None:
        """Sent with every sequence; None for a pool in this process."""
        return Lease(self._owner, self._ttl_s) if self._pool.remote else None

    @property
    def _ttl_s(self) -> float:
        return max(self._shortest_ttl_s, len(self._leases) * RENEWALS / RENEWALS_PER_S)

    @contextmanager
    def holding(self, replica: str, on_lost: OnLost = lambda: None) -> Iterator[None]:
        """Renew the lease at `replica` while the context lasts.

        `on_lost` is called whenever the replica has been silent for another `silence_s`, or longer
        if it or this process has been late recently. Does nothing for a pool in this process.
        """
        if not self._pool.remote:
            yield
            return
        lease = self._leases.setdefault(replica, _ReplicaLease())
        lease.watchers.append(on_lost)
        if lease.task is None:
            lease.task = asyncio.create_task(self._keep(replica, lease), name=f"lease-{replica}")
        try:
            yield
        finally:
            lease.watchers.remove(on_lost)
            if not lease.watchers and self._leases.get(replica) is lease:
                del self._leases[replica]
                lease.task.cancel()

    async def close(self) -> None:
        """Stop renewing."""
        tasks = [lease.task for lease in self._leases.values() if lease.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _keep(self, replica: str, lease: _ReplicaLease) -> None:
        loop = asyncio.get_running_loop()
        patience = self._patience_with(replica)
        watch = patience.watch()
        while True:
            began, interval = loop.time(), self._ttl_s / RENEWALS
            # A shorter deadline would mistake a slow replica for a silent one.
            if await self._renew(replica, max(interval, watch.left_s)):
                watch.heard()
            elif watch.left_s <= 0:
                self.silences += 1
                logger.warning(
                    "decoder %s silent for %.2g s, treating it as lost", replica, patience.limit_s
                )
                watch.restart()
                for on_lost in tuple(lease.watchers):
                    on_lost()
            await asyncio.sleep(max(0.0, began + interval - loop.time()))

    def _patience_with(self, replica: str) -> Patience:
        patience = self._patience.pop(replica, None) or Patience(self._silence_s)
        self._patience[replica] = patience
        if len(self._patience) > MAX_REPLICAS:
            del self._patience[next(iter(self._patience))]
        return patience

    async def _renew(self, replica: str, deadline_s: float) -> bool:
        try:
            async with asyncio.timeout(deadline_s):
                # If this process was late, it may be again, and for as long.
                ttl_s = self._ttl_s + min(LATENESS * loop_clock().lateness, MAX_EXTENSION_S)
                await self._pool.renew(self._owner, ttl_s, replica)
        except (Exception, asyncio.CancelledError) as error:
            if being_cancelled():
                raise
            # One lost renewal is harmless; the streams of a dead replica fail on their own.
            logger.info("lease on %s not renewed: %s", replica, error or type(error).__name__)
            return False
        return True
