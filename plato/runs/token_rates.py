"""How many tokens a minute each tenant may have."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from plato.errors import RateLimitError

MINUTE_S = 60.0
MAX_TENANTS = 1024
"""Tenants after which those with a full bucket are dropped."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    """Negative after a run that had more than there was."""
    filled_at: float


class TokenRates:
    """A bucket for each tenant, which fills steadily and holds what a minute brings.

    A run is admitted while there is anything in it, and taken from it when it ends: only then its
    tokens are known. So a tenant can exceed its rate once, and waits longer afterwards.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`per_minute`: None is no limit."""
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        """Of tenants whose bucket was not full; see `MAX_TENANTS`."""

    def require(self, tenant: str) -> None:
        """Raise `RateLimitError` if the tenant's bucket is empty."""
        if self._per_minute is None or tenant not in self._buckets:
            return
        tokens = self._fill(self._buckets[tenant], self._per_minute)
        if tokens <= 0:
            wait_s = (1 - tokens) * MINUTE_S / self._per_minute
            raise RateLimitError(
                f"this API key may have {self._per_minute} tokens a minute, and has had more; try "
                f"again in {wait_s:.0f} s",
                retry_after_s=wait_s,
            )

    def charge(self, tenant: str, tokens: int) -> None:
        """Take the tokens of a run that has ended."""
        if self._per_minute is None:
            return
        if len(self._buckets) >= MAX_TENANTS:
            self._drop_full(self._per_minute)
        full = _Bucket(self._per_minute, self._clock())
        bucket = self._buckets.setdefault(tenant, full)
        bucket.tokens = self._fill(bucket, self._per_minute) - tokens

    def _fill(self, bucket: _Bucket, per_minute: int) -> float:
        now = self._clock()
        brought = (now - bucket.filled_at) * per_minute / MINUTE_S
        bucket.tokens, bucket.filled_at = min(per_minute, bucket.tokens + brought), now
        return bucket.tokens

    def _drop_full(self, per_minute: int) -> None:
        for tenant, bucket in tuple(self._buckets.items()):
            if self._fill(bucket, per_minute) >= per_minute:
                del self._buckets[tenant]
