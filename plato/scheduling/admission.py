"""Admission: how many runs are in flight, and which one is next."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from plato.errors import OverloadedError, PlatoError, RateLimitError, UnavailableError

RETRY_AFTER_S = 1.0
KEPT_SHARE = 8
"""One slot of so many is kept for tenants without a run in flight."""


class Admission:
    """Bounds the runs in flight and those that wait, fair between tenants.

    A slot goes to the waiting tenant with the fewest runs in flight, and among equals to the one
    that got a slot least recently (max-min fairness in slots); a tenant's runs are FIFO. The last
    slots are for tenants without a run in flight (`KEPT_SHARE`), so that one with long runs does
    not keep others waiting until one ends.

    A further run of a tenant is admitted only while the decoders have memory for it (`room`): they
    report that with the chunks of runs, and share it between tenants. When too many wait, the
    tenant with the most runs is refused its newest, so that a tenant with few is never refused
    because of others. Not thread-safe.
    """

    def __init__(
        self,
        *,
        max_running: int,
        max_waiting: int,
        patience_s: float,
        max_tenant: int | None = None,
        room: Callable[[], bool] = lambda: True,
    ) -> None:
        """`patience_s` is the longest time that a run waits.

        `max_tenant` bounds the runs of one tenant, in flight and waiting.
        """
        self._max_tenant = max_tenant
        self._max_running = max_running
        self._shared = max_running - max_running // KEPT_SHARE
        """Slots that a tenant with a run in flight can get."""
        self._max_waiting = max_waiting
        self._patience_s = patience_s
        self._room = room
        self._running: Counter[str] = Counter()
        """By tenant; tenants without a run are dropped."""
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """By tenant, the one that got a slot least recently first; tenants without a waiting run
        are dropped. At most `max_waiting` in all."""

    @property
    def running(self) -> int:
        """Runs in flight."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """Runs that wait for a slot."""
        return sum(map(len, self._waiting.values()))

    def recheck(self) -> None:
        """Admit waiting runs; call it when the decoders may have got room."""
        while self._waiting:
            # min() takes the first of equals: the order of the dict decides.
            tenant = min(self._waiting, key=lambda name: self._running[name])
            if not self._has_slot(tenant):
                return
            slot = self._waiting[tenant].popleft()
            given_up = slot.done()
            if not self._waiting[tenant]:
                del self._waiting[tenant]
            elif not given_up:
                self._waiting.move_to_end(tenant)
            if not given_up:
                self._running[tenant] += 1
                slot.set_result(None)

    async def enter(self, tenant: str) -> None:
        """Take a slot for one run of `tenant`, until `leave`.

        Raises `RateLimitError` if the tenant has as many as it may have, `OverloadedError` if too
        many runs wait or no slot gets free in time, and
        `UnavailableError` if the decoders have no memory for another run.
        """
        if self._max_tenant is not None and self._runs(tenant) >= self._max_tenant:
            raise RateLimitError(
                f"{self._max_tenant} answers of this API key are in progress, as many as it may "
                "have; wait for one of them to end",
                retry_after_s=RETRY_AFTER_S,
            )
        if not self._waiting and self._has_slot(tenant):
            self._running[tenant] += 1
            return
        if self.waiting >= self._max_waiting:
            self._make_room(tenant)
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(slot)
        self.recheck()
        try:
            async with asyncio.timeout(self._patience_s):
                await slot
        except BaseException as error:
            if not slot.done() or slot.cancelled():
                self._forget(tenant, slot)
            elif slot.exception() is None:
                # The slot was granted while the wait was being cancelled.
                self.leave(tenant)
            if isinstance(error, TimeoutError):
                raise self._refusal() from error
            raise

    def _make_room(self, newcomer: str) -> None:
        """Refuse the newest run of the tenant with the most; raises if that is `newcomer`."""
        largest = max(self._waiting, key=self._runs, default=newcomer)
        if largest == newcomer or self._runs(newcomer) + 1 >= self._runs(largest):
            raise self._refusal()
        slot = self._waiting[largest][-1]
        self._forget(largest, slot)
        if not slot.done():
            slot.set_exception(self._refusal())

    def _runs(self, tenant: str) -> int:
        return self._running[tenant] + len(self._waiting.get(tenant, ()))

    def leave(self, tenant: str) -> None:
        """Give the slot back."""
        self._running[tenant] -= 1
        self._running += Counter()  # Drops what is 0.
        self.recheck()

    def _forget(self, tenant: str, slot: asyncio.Future[None]) -> None:
        queue = self._waiting.get(tenant)
        if queue is not None and slot in queue:
            queue.remove(slot)
            if not queue:
                del self._waiting[tenant]

    def _has_slot(self, tenant: str) -> bool:
        if self._running[tenant] == 0:
            return self.running < self._max_running
        return self.running < self._shared and self._room()

    def _refusal(self) -> PlatoError:
        if self.running < self._shared:
            return UnavailableError(
                "the decoders have no memory for another run; try again in a moment",
                retry_after_s=RETRY_AFTER_S,
            )
        return OverloadedError(
            f"{self.running} runs in flight and {self.waiting} waiting; try again in a moment",
            retry_after_s=RETRY_AFTER_S,
        )
