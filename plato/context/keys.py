"""The names of the store's keys.

A key is `plato:TENANT:{RUN}:state` and the like. Tenant and run are percent-encoded, so that
neither can hold a `:` or a brace and no name of a tenant leads out of its prefix; `plato:acme:*`
is everything of one tenant (and can be an ACL rule). The braces are Redis Cluster's hash tag: the
keys of one run share a slot, so that one script may touch them all.
"""

from __future__ import annotations

from urllib.parse import quote


def run_key(tenant: str, run: str) -> str:
    """A run's state, its owner and its fence (a hash)."""
    return f"plato:{_escape(tenant)}:{{{_escape(run)}}}:state"


def nodes_key(tenant: str, run: str) -> str:
    """A run's finished nodes by number (a hash)."""
    return f"plato:{_escape(tenant)}:{{{_escape(run)}}}:nodes"


def handles_key(tenant: str, chain: bytes) -> str:
    """Who holds the KV of a chain (a sorted set by time of announcement)."""
    return f"plato:{_escape(tenant)}:{{{chain.hex()}}}:kv"


def _escape(name: str) -> str:
    return quote(name, safe="")
