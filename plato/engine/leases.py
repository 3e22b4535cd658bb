"""Leases: which consumers of an engine's sequences are still there."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from plato.engine.protocol import Lease

LATE_S = 0.5
"""Time between two checks that says that this process was late: checks come with every step or
tick. A step of many prompt tokens can take as long."""


class Leases:
    """Deadline of every owner with live sequences. Bounded by them: call `retain` when one ends.

    Not thread-safe: it belongs to the thread that checks it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deadlines: dict[str, float] = {}
        self._checked_at = time.monotonic()

    @property
    def owners(self) -> frozenset[str]:
        """Consumers whose lease is known."""
        return frozenset(self._deadlines)

    def grant(self, lease: Lease | None) -> None:
        """Note the lease of a new sequence."""
        if lease is not None:
            self._extend(lease.owner, lease.ttl_s)

    def renew(self, owner: str, ttl_s: float) -> None:
        """Extend an owner's lease to `ttl_s` seconds from now, if it has live sequences."""
        if owner in self._deadlines:
            self._extend(owner, ttl_s)

    def retain(self, owners: Collection[str | None]) -> None:
        """Forget all other owners; `owners` are those of the live sequences."""
        for owner in self._deadlines.keys() - set(owners):
            del self._deadlines[owner]

    def take_expired(self) -> frozenset[str]:
        """Owners whose lease has expired since the last call; they are forgotten."""
        checked_at, self._checked_at = self._checked_at, time.monotonic()
        late_s = self._checked_at - checked_at
        if late_s > LATE_S:
            # This process was late, perhaps with renewals that are still on their way.
            for owner in self._deadlines:
                self._deadlines[owner] += late_s
        now = self._clock()
        expired = frozenset(owner for owner, at in self._deadlines.items() if at <= now)
        for owner in expired:
            del self._deadlines[owner]
        return expired

    def _extend(self, owner: str, ttl_s: float) -> None:
        # Never shorter: a consumer that was late asks for more time than its requests do.
        self._deadlines[owner] = max(self._clock() + ttl_s, self._deadlines.get(owner, 0.0))
