"""The names of the store's keys.

A key is `plato:TENANT:{RUN}:state` and the like. Tenant and run are percent-encoded, so that
neither can hold a `:` or a brace and no name of a tenant leads out of its prefix; `plato:acme:*`
is everything of one tenant (and can be an ACL rule). The braces are Redis Cluster's hash tag: the
keys of one run share a slot, so that one script may touch them all. Two keys are no tenant's:
`plato:running` and `plato:kv`.
"""

from __future__ import annotations

from urllib.parse import quote, unquote


def run_key(tenant: str, run_id: str) -> str:
    """A run's state, its owner and its fence (a hash)."""
    return f"plato:{_escape(tenant)}:{{{_escape(run_id)}}}:state"


def nodes_key(tenant: str, run_id: str) -> str:
    """A run's finished nodes by number (a hash)."""
    return f"plato:{_escape(tenant)}:{{{_escape(run_id)}}}:nodes"


def events_key(tenant: str, run_id: str) -> str:
    """A run's event log (a stream)."""
    return f"plato:{_escape(tenant)}:{{{_escape(run_id)}}}:events"


KV_EVENTS_KEY = "plato:kv"
"""KV events of all decoders (a stream); hashes only, salted with the tenant."""
RUNNING_KEY = "plato:running"
"""Runs that have an owner, by the end of its lease (a sorted set); under no tenant's prefix."""


def running_member(tenant: str, run_id: str) -> str:
    """How a run is named in `RUNNING_KEY`."""
    return f"{_escape(tenant)}:{_escape(run_id)}"


def read_running_member(member: str) -> tuple[str, str]:
    """(tenant, run) of `running_member`."""
    tenant, _, run = member.partition(":")
    return unquote(tenant), unquote(run)


def _escape(name: str) -> str:
    return quote(name, safe="")
