"""Keeps the prefixes that a server has cached apart by tenant."""

from __future__ import annotations

import hashlib

from plato.engine.errors import RequestRefusedError

SALT_BYTES = 16


def tenant_salt(tenant: str, key: str | None) -> str | None:
    """Separates a tenant's cached prefixes; equal in all processes that share a server's `key`."""
    if not tenant:
        return None
    secret = (key or "").encode()[: hashlib.blake2b.MAX_KEY_SIZE]
    return hashlib.blake2b(tenant.encode(), key=secret, digest_size=SALT_BYTES).hexdigest()


class SoleTenant:
    """The only tenant of a server that cannot separate several."""

    def __init__(self) -> None:
        self._tenant: str | None = None

    def require(self, tenant: str) -> None:
        """Raise `RequestRefusedError` for any tenant but the first."""
        if self._tenant is None:
            self._tenant = tenant
        if tenant != self._tenant:
            raise RequestRefusedError(
                "the server cannot separate the cached prompts of several API keys, and already "
                "serves another one; use one key, or another kind of server"
            )
