"""Keeps the prefixes that a server has cached apart by tenant."""

from __future__ import annotations

import hashlib

SALT_BYTES = 16


def tenant_salt(tenant: str, key: str | None) -> str | None:
    """Separates a tenant's cached prefixes; equal in all processes that share a server's `key`."""
    if not tenant:
        return None
    secret = (key or "").encode()[: hashlib.blake2b.MAX_KEY_SIZE]
    return hashlib.blake2b(tenant.encode(), key=secret, digest_size=SALT_BYTES).hexdigest()
