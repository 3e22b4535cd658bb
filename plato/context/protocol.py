"""The contract of the context store: the state of runs that other processes can read.

The store is off the hot path: decoding never waits for it. Writes go through a bounded background
queue, and reads have short deadlines. While the store is unavailable, runs continue and report it
in `degraded`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from plato.runs import EventId, Mode, Node


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """The output of a finished node: enough to rebuild every prompt that depends on it."""

    run_id: str
    tenant: str
    number: int
    tokens: tuple[int, ...]
    text: str
    finish: str
    replica: str
    epoch: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The state of a run: enough for another scheduler to finish it."""

    run_id: str
    tenant: str
    owner: str
    """The scheduler replica that drives the run."""
    fence: int
    """Fencing token of the owner's lease; writes with a smaller one are rejected."""
    mode: Mode
    state: str
    """`running`, `done`, `failed` or `cancelled`."""
    nodes: tuple[Node, ...]
    plan_complete: bool
    request: bytes
    """The packed `RunRequest`; once the run has ended, with the beginning of its question only."""
    created_unix_s: float


QUOTA_BYTES = 64 << 20
"""Default size of what a tenant may have in the store: a quarter of the embedded one."""
KV_EVENTS_START = "0"
"""Id that precedes all KV events."""


class ContextStore(Protocol):
    """Node outputs, run state, event logs and KV events.

    Methods never raise because the store is unavailable: writes are dropped and counted, reads
    return nothing, and `available` is False until the store answers again.

    Each tenant has a quota. What exceeds it evicts ended runs of the same tenant, oldest first.
    Runs in progress are written to their end even if they exceed it; only new runs are refused.
    """

    @property
    def available(self) -> bool:
        """Whether the store answered last time, or has not been asked yet."""
        ...

    async def ping(self) -> bool:
        """Whether the store answers now."""
        ...

    async def put_run(self, record: RunRecord) -> bool:
        """Write a run's state; False if it could not be written or the fence is stale.

        Raises `StorageQuotaError` if the run is new and those in progress fill the quota.
        """
        ...

    async def get_run(self, tenant: str, run_id: str) -> RunRecord | None:
        """Read a run's state."""
        ...

    async def list_runs(
        self, tenant: str, before: str | None = None, limit: int = 20
    ) -> tuple[RunRecord, ...]:
        """The newest runs of a tenant, newest first; with `before`, those older than that run.

        Runs that are not stored any more are skipped; nothing is older than one of those.
        """
        ...

    async def put_node(self, record: NodeRecord, fence: int) -> bool:
        """Write a finished node's output; False if not possible or `fence` is stale."""
        ...

    async def get_nodes(self, tenant: str, run_id: str) -> dict[int, NodeRecord]:
        """All finished nodes of a run, by number."""
        ...

    async def append_kv_events(self, entry: bytes) -> bool:
        """Append a packed batch of KV events; False if it could not be written."""
        ...

    async def read_kv_events(self, after: str) -> tuple[tuple[str, bytes], ...] | None:
        """Packed batches after the entry with id `after`, with their ids; bounded per call.

        An empty `after` returns only the last entry, as a position to start from. `None` if the
        store is unavailable. Only recent entries are kept: a gap shows in the numbers of the
        batches.
        """
        ...

    async def append_events(
        self,
        tenant: str,
        run_id: str,
        last: EventId,
        fence: int,
        events: bytes,
        *,
        after: EventId | None = None,
    ) -> bool:
        """Append packed events, the last of which is `last`, to the log of a run.

        False if they could not be written, the fence is stale, or `after` is given and is not the
        end of the log; True if the log already contains them.
        """
        ...

    async def read_events(
        self, tenant: str, run_id: str, after: EventId
    ) -> tuple[tuple[EventId, bytes], ...]:
        """Packed events with ids above `after`, each with the id of its last; bounded per call."""
        ...

    async def acquire(
        self, tenant: str, run_id: str, owner: str, ttl_s: float, *, force: bool = False
    ) -> int | None:
        """Become the owner of a run: the new fencing token, or None if it has another owner.

        With `force` the ownership is taken from the current owner.
        """
        ...

    async def extend(self, tenant: str, run_id: str, owner: str, fence: int, ttl_s: float) -> bool:
        """Extend the lease; False if the ownership is lost."""
        ...

    async def release(self, tenant: str, run_id: str, owner: str, fence: int) -> None:
        """Give up the ownership."""
        ...

    async def orphans(self) -> tuple[tuple[str, str], ...]:
        """(tenant, run) of runs whose leases have expired; a bounded number per call."""
        ...

    async def forget(self, tenant: str, run_id: str) -> None:
        """The run has ended and is not an orphan. Its data is kept."""
        ...

    async def close(self) -> None:
        """Write what is queued, within a short deadline, and disconnect."""
        ...
