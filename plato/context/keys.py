"""Key names of the store.

Keys have the form `plato:TENANT:{RUN}:state`. Tenant and run are percent-encoded, so neither can
contain `:` or a brace, and no tenant name can escape its prefix; `plato:acme:*` matches all keys of
one tenant (and can be an ACL rule). The braces are the hash tag of Redis Cluster: the keys of one
run share a slot. `plato:TENANT:usage` and `plato:TENANT:written` account for all runs of a tenant.
Two keys belong to no tenant: `plato:running` and `plato:kv`.
"""

from __future__ import annotations

from urllib.parse import quote, unquote


def run_key(tenant: str, run_id: str) -> str:
    """State, owner and fence of a run (a hash)."""
    return f"plato:{_escape(tenant)}:{{{_escape(run_id)}}}:state"


def nodes_key(tenant: str, run_id: str) -> str:
    """Finished nodes of a run, by number (a hash)."""
    return f"plato:{_escape(tenant)}:{{{_escape(run_id)}}}:nodes"


def events_key(tenant: str, run_id: str) -> str:
    """Event log of a run (a stream)."""
    return f"plato:{_escape(tenant)}:{{{_escape(run_id)}}}:events"


def usage_key(tenant: str) -> str:
    """Bytes that a tenant's runs take, by the prefix of their keys, and in all (a hash)."""
    return f"plato:{_escape(tenant)}:usage"


def written_key(tenant: str) -> str:
    """Prefixes of the keys of a tenant's runs, by their last write (a sorted set)."""
    return f"plato:{_escape(tenant)}:written"


KV_EVENTS_KEY = "plato:kv"
"""KV events of all decoders (a stream); contains only hashes, salted with the tenant."""
RUNNING_KEY = "plato:running"
"""Runs that have an owner, by the expiry of its lease (a sorted set)."""


def running_member(tenant: str, run_id: str) -> str:
    """Member of `RUNNING_KEY` for a run."""
    return f"{_escape(tenant)}:{_escape(run_id)}"


def read_running_member(member: str) -> tuple[str, str]:
    """Inverse of `running_member`: (tenant, run)."""
    tenant, _, run = member.partition(":")
    return unquote(tenant), unquote(run)


def _escape(name: str) -> str:
    return quote(name, safe="")
