"""The contract of the context store: what a run leaves behind for others to use.

The store is off the hot path: decoding never waits for it. Writes are handed to a bounded
background writer; reads have short deadlines; when the store is away, `degraded` says so and
everything goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from plato.runs import EventId, Mode, Node


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A finished node's output: enough to rebuild every prompt that needs it."""

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
    """A run's state: enough for another scheduler to finish it."""

    run_id: str
    tenant: str
    owner: str
    """The scheduler replica that drives the run."""
    fence: int
    """Fencing token of the owner's lease; a write with a smaller one is refused."""
    mode: Mode
    state: str
    """`running`, `done`, `failed` or `cancelled`."""
    nodes: tuple[Node, ...]
    plan_complete: bool
    request: bytes
    """The packed `RunRequest`."""
    created_unix_s: float


KV_EVENTS_START = "0"
"""Id before the first entry of the KV events."""


class ContextStore(Protocol):
    """Node outputs, run state, event logs and KV events.

    Methods never raise because the store is away: writes are dropped and counted, reads return
    nothing, and `available` turns False until the store answers again.
    """

    @property
    def available(self) -> bool:
        """Whether the store answered last time, or has not been asked yet."""
        ...

    async def ping(self) -> bool:
        """Whether the store answers now."""
        ...

    async def put_run(self, record: RunRecord) -> bool:
        """Write a run's state; False if it could not be written or the fence is stale."""
        ...

    async def get_run(self, tenant: str, run_id: str) -> RunRecord | None:
        """Read a run's state."""
        ...

    async def put_node(self, record: NodeRecord) -> bool:
        """Write a finished node's output."""
        ...

    async def get_nodes(self, tenant: str, run_id: str) -> dict[int, NodeRecord]:
        """All finished nodes of a run, by number."""
        ...

    async def append_kv_events(self, entry: bytes) -> bool:
        """Append a packed batch of KV events; False if it could not be written."""
        ...

    async def read_kv_events(self, after: str) -> tuple[tuple[str, bytes], ...] | None:
        """Packed batches after the entry with id `after`, with their ids; not all at once.

        An empty `after` returns the last entry only, so that a reader knows where to begin.
        `None` if the store is away. Only the last entries are kept: the numbers of the batches
        show a gap.
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
        """Append packed events, the last of which is `last`, to a run's log.

        False if they could not be written, the fence is stale, or `after` is given and not where
        the log ends; True if the log is as far already.
        """
        ...

    async def read_events(
        self, tenant: str, run_id: str, after: EventId
    ) -> tuple[tuple[EventId, bytes], ...]:
        """Packed events with the id of the last of each, for ids above `after`; not all at once."""
        ...

    async def acquire(
        self, tenant: str, run_id: str, owner: str, ttl_s: float, *, force: bool = False
    ) -> int | None:
        """Become the run's owner: the new fencing token, or None if somebody else is.

        With `force` the ownership is taken from whoever has it.
        """
        ...

    async def extend(self, tenant: str, run_id: str, owner: str, fence: int, ttl_s: float) -> bool:
        """Keep the ownership; False if it is lost."""
        ...

    async def release(self, tenant: str, run_id: str, owner: str, fence: int) -> None:
        """Give the ownership up."""
        ...

    async def orphans(self) -> tuple[tuple[str, str], ...]:
        """(tenant, run) of runs whose owners' leases have run out; not all at once."""
        ...

    async def forget(self, tenant: str, run_id: str) -> None:
        """It is no orphan: it has ended. What is known of it stays."""
        ...

    async def close(self) -> None:
        """Write what is queued, within a short deadline, and disconnect."""
        ...
