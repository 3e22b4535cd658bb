"""A scheduler's lease on a run."""

from __future__ import annotations

from plato.context import ContextStore

HANDED_OVER_TTL_S = 0.001
"""Expires at once, which makes the run an orphan that other schedulers adopt."""


class RunLease:
    """Ownership of one run in the context store, with a fencing token."""

    def __init__(
        self,
        store: ContextStore,
        tenant: str,
        run_id: str,
        owner: str,
        ttl_s: float,
        fence: int = 0,
        *,
        force: bool = False,
    ) -> None:
        """`fence` is that of a lease that was acquired before; otherwise call `acquire`.

        With `force` the first `acquire` takes the lease from an owner that is known to have failed.
        """
        self._store = store
        self._tenant = tenant
        self._run_id = run_id
        self.owner = owner
        self._ttl_s = ttl_s
        self.fence = fence
        """The fencing token; 0 until acquired."""
        self._force = force
        self.lost = False
        """Whether another scheduler drives the run now."""

    async def acquire(self) -> bool:
        """Acquire the lease, if it is free; returns whether it was."""
        fence = await self._store.acquire(
            self._tenant, self._run_id, self.owner, self._ttl_s, force=self._force
        )
        self.fence = fence or 0
        # Force only once: a later owner has taken the run from this one for a reason.
        self._force = self._force and fence is None
        return fence is not None

    async def extend(self) -> bool:
        """Renew; false if the store is unreachable or the lease is lost."""
        return await self._extend(self._ttl_s)

    async def hand_over(self) -> None:
        """Let another scheduler adopt the run."""
        self.lost = True
        await self._extend(HANDED_OVER_TTL_S)

    async def release(self) -> None:
        """Release the lease of a run that has ended."""
        await self._store.release(self._tenant, self._run_id, self.owner, self.fence)

    async def _extend(self, ttl_s: float) -> bool:
        return await self._store.extend(self._tenant, self._run_id, self.owner, self.fence, ttl_s)
