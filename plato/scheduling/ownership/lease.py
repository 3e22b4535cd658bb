"""A scheduler's claim to a run."""

from __future__ import annotations

from plato.context import ContextStore

HANDED_OVER_TTL_S = 0.001
"""A lease that expires at once makes the run an orphan, which other schedulers look for."""


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
        """`fence` is given where the lease was acquired before; otherwise `acquire` it.

        With `force` it is taken from whoever has it, because that owner was seen dying.
        """
        self._store = store
        self._tenant = tenant
        self._run_id = run_id
        self.owner = owner
        self._ttl_s = ttl_s
        self.fence = fence
        """0: not acquired."""
        self._force = force
        self.lost = False
        """Whether another scheduler drives the run now."""

    async def acquire(self) -> bool:
        """Become the owner, if nobody else is."""
        fence = await self._store.acquire(
            self._tenant, self._run_id, self.owner, self._ttl_s, force=self._force
        )
        self.fence = fence or 0
        # Once: whoever takes the run from us after this has a reason to.
        self._force = self._force and fence is None
        return fence is not None

    async def extend(self) -> bool:
        """Renew; false if the store is away, has forgotten the lease, or gave it to another."""
        return await self._extend(self._ttl_s)

    async def hand_over(self) -> None:
        """Let another scheduler adopt the run."""
        self.lost = True
        await self._extend(HANDED_OVER_TTL_S)

    async def release(self) -> None:
        """Give it up, because the run has ended."""
        await self._store.release(self._tenant, self._run_id, self.owner, self.fence)

    async def _extend(self, ttl_s: float) -> bool:
        return await self._store.extend(self._tenant, self._run_id, self.owner, self.fence, ttl_s)
