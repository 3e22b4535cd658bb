"""Key names of the store.

Keys have the form `NAMESPACE:TENANT:{RUN}:state`. Each part is percent-encoded, so none can contain
`:` or a brace, and no name can escape its prefix; `plato:acme:*` matches all keys of one tenant in
the namespace `plato` (and can be an ACL rule). `NAMESPACE:TENANT:usage`, `...:written` and
`...:created` account for all runs of a tenant. The keys of a run say nothing of its model, so that
its answer can be read after the model was replaced. Two keys belong to no tenant but to one model:
`NAMESPACE:running:MODEL` and `NAMESPACE:kv:MODEL`, with the model's fingerprint.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one application with one model."""

    namespace: str = "plato"
    """Applications with the same one share their runs."""
    fingerprint: str = ""
    """Of the model: schedulers adopt only its runs, and follow only its KV events."""

    def run(self, tenant: str, run_id: str) -> str:
        """State, owner and fence of a run (a hash)."""
        return self._of_run(tenant, run_id, "state")

    def nodes(self, tenant: str, run_id: str) -> str:
        """Finished nodes of a run, by number (a hash)."""
        return self._of_run(tenant, run_id, "nodes")

    def events(self, tenant: str, run_id: str) -> str:
        """Event log of a run (a stream)."""
        return self._of_run(tenant, run_id, "events")

    @property
    def kv_events(self) -> str:
        """KV events of all decoders (a stream); contains only hashes, salted with the tenant."""
        return f"{_escape(self.namespace)}:kv:{self.fingerprint}"

    @property
    def running(self) -> str:
        """Runs that have an owner, by the expiry of its lease (a sorted set)."""
        return f"{_escape(self.namespace)}:running:{self.fingerprint}"

    def usage(self, tenant: str) -> str:
        """Bytes that a tenant's runs take, by the prefix of their keys, and in all (a hash)."""
        return self._of_tenant(tenant, "usage")

    def written(self, tenant: str) -> str:
        """Prefixes of the keys of a tenant's runs, by their last write (a sorted set)."""
        return self._of_tenant(tenant, "written")

    def created(self, tenant: str) -> str:
        """Prefixes of the keys of a tenant's runs, by their creation (a sorted set)."""
        return self._of_tenant(tenant, "created")

    def prefix(self, tenant: str, run_id: str) -> str:
        """What all keys of a run begin with."""
        return self._of_run(tenant, run_id, "")

    def _of_tenant(self, tenant: str, kind: str) -> str:
        return f"{_escape(self.namespace)}:{_escape(tenant)}:{kind}"

    def _of_run(self, tenant: str, run_id: str, kind: str) -> str:
        # The braces keep runs apart from `kv` and `running`, whatever the tenant is called.
        return f"{_escape(self.namespace)}:{_escape(tenant)}:{{{_escape(run_id)}}}:{kind}"


def running_member(tenant: str, run_id: str) -> str:
    """Member of `Keys.running` for a run."""
    return f"{_escape(tenant)}:{_escape(run_id)}"


def read_running_member(member: str) -> tuple[str, str]:
    """Inverse of `running_member`: (tenant, run)."""
    tenant, _, run = member.partition(":")
    return unquote(tenant), unquote(run)


def _escape(name: str) -> str:
    return quote(name, safe="")
