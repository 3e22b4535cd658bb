"""Admission: how many runs are in flight, and who comes next."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from plato.errors import OverloadedError, PlatoError, UnavailableError

RETRY_AFTER_S = 1.0


class Admission:
    """Bounds the runs in flight and those that wait, fair between tenants.

    A place goes to the waiting tenant with the fewest runs in flight, and among equals to the one
    that has gone longest without (max-min fairness in places); a tenant's own runs come in order.
    A run is admitted only while the decoders have memory for it (`room`), unless nothing runs: what
    is known of their memory comes with the chunks of runs. Belongs to one event loop.
    """

    def __init__(
        self,
        *,
        max_running: int,
        max_waiting: int,
        patience_s: float,
        room: Callable[[], bool] = lambda: True,
    ) -> None:
        """`patience_s` is how long a run waits, at the most."""
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._patience_s = patience_s
        self._room = room
        self._running: Counter[str] = Counter()
        """By tenant; those without a run are dropped."""
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """By tenant, the one that has gone longest without a place first; tenants that wait for
        nothing are dropped. Bounded by `max_waiting` in all."""

    @property
    def running(self) -> int:
        """Runs in flight."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """Runs that wait for a place."""
        return sum(map(len, self._waiting.values()))

    def recheck(self) -> None:
        """Admit whoever can be: call it when the decoders may have got room."""
        while self._waiting and self._has_place():
            # min() takes the first of equals: the order of the dict decides.
            tenant = min(self._waiting, key=lambda name: self._running[name])
            place = self._waiting[tenant].popleft()
            given_up = place.done()
            if not self._waiting[tenant]:
                del self._waiting[tenant]
            elif not given_up:
                self._waiting.move_to_end(tenant)
            if not given_up:
                self._running[tenant] += 1
                place.set_result(None)

    async def enter(self, tenant: str) -> None:
        """Take a place for one run of `tenant`, until `leave`.

        Raises `OverloadedError` where too many wait already or no place gets free in time, and
        `UnavailableError` where the decoders' memory is what is missing.
        """
        if not self._waiting and self._has_place():
            self._running[tenant] += 1
            return
        if self.waiting >= self._max_waiting:
            raise self._refusal()
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(place)
        self.recheck()
        try:
            async with asyncio.timeout(self._patience_s):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                # It got its place in the moment in which it was given up.
                self.leave(tenant)
            else:
                self._forget(tenant, place)
            if isinstance(error, TimeoutError):
                raise self._refusal() from error
            raise

    def leave(self, tenant: str) -> None:
        """Give a place back."""
        self._running[tenant] -= 1
        self._running += Counter()  # Drops what is 0.
        self.recheck()

    def _forget(self, tenant: str, place: asyncio.Future[None]) -> None:
        queue = self._waiting.get(tenant)
        if queue is not None and place in queue:
            queue.remove(place)
            if not queue:
                del self._waiting[tenant]

    def _has_place(self) -> bool:
        running = self.running
        return running < self._max_running and (running == 0 or self._room())

    def _refusal(self) -> PlatoError:
        if self.running < self._max_running:
            return UnavailableError(
                "the decoders have no memory to spare for another question; try again in a moment",
                retry_after_s=RETRY_AFTER_S,
            )
        return OverloadedError(
            f"{self.running} questions are being answered and {self.waiting} wait already; try "
            "again in a moment",
            retry_after_s=RETRY_AFTER_S,
        )
