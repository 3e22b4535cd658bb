"""How much each tenant has been served, so that the one served least is next."""

from __future__ import annotations

from collections.abc import Collection

MAX_TENANTS = 4096
"""Idle tenants whose service is remembered."""


class TenantShares:
    """A virtual token counter by tenant (VTC: Sheng et al., 2024, arXiv 2401.00588).

    A tenant that was idle does not save up for later: it joins at the least service of those that
    are active. So nobody starves, and one that sends much delays others by at most their share.
    """

    def __init__(self) -> None:
        self._served: dict[str, int] = {}

    def served(self, tenant: str) -> int:
        """Tokens computed and sampled for a tenant.

        An output token counts twice: it costs more than a prompt token.
        """
        return self._served.get(tenant, 0)

    def join(self, tenant: str, active: Collection[str]) -> None:
        """Note that a tenant has work again; `active` are the tenants that have some now."""
        if tenant in active:
            return
        if not active or len(self._served) > MAX_TENANTS:
            self._served = {other: self.served(other) for other in active}
        least = min(map(self.served, active), default=0)
        self._served[tenant] = max(self.served(tenant), least)

    def charge(self, tenant: str, tokens: int) -> None:
        """Count service."""
        self._served[tenant] = self.served(tenant) + tokens
