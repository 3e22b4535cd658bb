"""A context store inside one process, without a server."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from plato.context.protocol import QUOTA_BYTES, NodeRecord, RunRecord
from plato.errors import StorageQuotaError
from plato.runs import BEFORE_ALL, EventId

MAX_KV_EVENTS = 1024


@dataclass(slots=True)
class _Run:
    record: RunRecord | None = None
    fence: int = 0
    owner: str | None = None
    until: float = 0.0
    nodes: dict[int, NodeRecord] = field(default_factory=dict)
    events: list[tuple[EventId, bytes]] = field(default_factory=list)
    """Bounded by the token budgets of the run's nodes."""
    size: int = 0
    """Bytes, roughly."""

    @property
    def ended(self) -> bool:
        """Whether it is stored to its end."""
        return self.record is not None and self.record.state != "running"


@dataclass(slots=True)
class _Tenant:
    runs: OrderedDict[str, _Run] = field(default_factory=OrderedDict)
    """By id, least recently written first."""
    size: int = 0
    """Of all runs."""


class MemoryContextStore:
    """Keeps the most recent runs, and KV events.

    Beyond `max_runs`, a run of the tenant with the most runs is evicted.
    """

    def __init__(
        self,
        *,
        max_runs: int = 1024,
        quota_bytes: int = QUOTA_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_runs = max_runs
        self._quota_bytes = quota_bytes
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}
        """Those that have runs."""
        self._count = 0
        """Runs of all tenants; at most `max_runs`."""
        self._kv_events: deque[tuple[str, bytes]] = deque(maxlen=MAX_KV_EVENTS)
        self._kv_event_number = 0
        """Number of the last entry."""
        self._last_fence = 0
        """One counter for all runs: fences increase even for a run that was forgotten."""

    @property
    def available(self) -> bool:
        """True: it has no connection that can break."""
        return True

    async def ping(self) -> bool:
        """Return True."""
        return True

    async def put_run(self, record: RunRecord) -> bool:
        """Write a run's state; False if the fence is stale. Raises `StorageQuotaError`."""
        run = self._touch(record.tenant, record.run_id)
        if record.fence < run.fence:
            return False
        old = 0 if run.record is None else len(run.record.request)
        more = len(record.request) - old
        self._charge(record.tenant, run, more, new=run.record is None)
        run.record, run.fence = record, record.fence
        self._last_fence = max(self._last_fence, record.fence)
        return True

    async def get_run(self, tenant: str, run_id: str) -> RunRecord | None:
        """Read a run's state."""
        found = self._find(tenant, run_id)
        return found.record if found else None

    async def list_runs(
        self, tenant: str, before: str | None = None, limit: int = 20
    ) -> tuple[RunRecord, ...]:
        """The newest runs of a tenant, or those older than `before`, newest first."""
        owner = self._tenants.get(tenant)
        records = [run.record for run in owner.runs.values() if run.record] if owner else []
        records.sort(key=lambda record: (record.created_unix_s, record.run_id), reverse=True)
        if before is not None:
            places = [i for i, record in enumerate(records) if record.run_id == before]
            records = records[places[0] + 1 :] if places else []
        return tuple(records[:limit])

    async def put_node(self, record: NodeRecord, fence: int) -> bool:
        """Write a finished node's output; False if the fence is stale."""
        run = self._touch(record.tenant, record.run_id)
        if fence < run.fence:
            return False
        old = run.nodes.get(record.number)
        self._charge(record.tenant, run, _size(record) - (_size(old) if old else 0))
        run.nodes[record.number] = record
        return True

    async def get_nodes(self, tenant: str, run_id: str) -> dict[int, NodeRecord]:
        """All finished nodes of a run, by number."""
        found = self._find(tenant, run_id)
        return dict(found.nodes) if found else {}

    async def append_kv_events(self, entry: bytes) -> bool:
        """Append a packed batch of KV events."""
        self._kv_event_number += 1
        self._kv_events.append((str(self._kv_event_number), entry))
        return True

    async def read_kv_events(self, after: str) -> tuple[tuple[str, bytes], ...] | None:
        """Packed batches after the entry with id `after`; the last one if it is empty."""
        if not after:
            return tuple(self._kv_events)[-1:]
        return tuple(entry for entry in self._kv_events if int(entry[0]) > int(after))

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
        """Append packed events; False if the fence is stale, or the log ends not at `after`."""
        found = self._touch(tenant, run_id)
        if fence < found.fence:
            return False
        end = found.events[-1][0] if found.events else BEFORE_ALL
        if end >= last:
            return True
        if after not in (None, end):
            return False
        self._charge(tenant, found, len(events))
        found.events.append((last, events))
        return True

    async def read_events(
        self, tenant: str, run_id: str, after: EventId
    ) -> tuple[tuple[EventId, bytes], ...]:
        """Packed events with the id of the last of each, for ids above `after`."""
        found = self._find(tenant, run_id)
        return tuple(entry for entry in found.events if entry[0] > after) if found else ()

    async def acquire(
        self, tenant: str, run_id: str, owner: str, ttl_s: float, *, force: bool = False
    ) -> int | None:
        """Become the run's owner: the new fencing token, or None if the run has another owner."""
        found = self._touch(tenant, run_id)
        now = self._clock()
        taken = found.owner is not None and found.owner != owner and found.until > now
        if taken and not force:
            return None
        # As in Redis: at least the clock, so that fences increase even after data loss.
        self._last_fence = max(self._last_fence + 1, round(time.time() * 1000))
        found.fence, found.owner, found.until = self._last_fence, owner, now + ttl_s
        return found.fence

    async def extend(self, tenant: str, run_id: str, owner: str, fence: int, ttl_s: float) -> bool:
        """Extend the lease; False if the ownership is lost."""
        found = self._find(tenant, run_id)
        if found is None or (found.owner, found.fence) != (owner, fence):
            return False
        found.until = self._clock() + ttl_s
        return True

    async def release(self, tenant: str, run_id: str, owner: str, fence: int) -> None:
        """Give up the ownership."""
        found = self._find(tenant, run_id)
        if found is not None and (found.owner, found.fence) == (owner, fence):
            found.owner = None

    async def orphans(self) -> tuple[tuple[str, str], ...]:
        """(tenant, run) of runs whose leases have expired."""
        now = self._clock()
        return tuple(
            (tenant, run_id)
            for tenant, owner in self._tenants.items()
            for run_id, run in owner.runs.items()
            if run.owner is not None and run.until <= now
        )

    async def forget(self, tenant: str, run_id: str) -> None:
        """The run has ended and is not an orphan. Its data is kept."""
        found = self._find(tenant, run_id)
        if found is not None:
            found.owner = None

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    def _touch(self, tenant: str, run_id: str) -> _Run:
        owner = self._tenants.setdefault(tenant, _Tenant())
        if run_id not in owner.runs:
            owner.runs[run_id] = _Run()
            self._count += 1
        owner.runs.move_to_end(run_id)
        while self._count > self._max_runs:
            self._evict_one()
        return owner.runs[run_id]

    def _find(self, tenant: str, run_id: str) -> _Run | None:
        owner = self._tenants.get(tenant)
        return None if owner is None else owner.runs.get(run_id)

    def _evict_one(self) -> None:
        """Evict the oldest ended run of the tenant with the most runs, or else its oldest."""
        tenant = max(self._tenants, key=lambda name: len(self._tenants[name].runs))
        owner = self._tenants[tenant]
        oldest = next(iter(owner.runs))
        self._evict(owner, next((name for name, run in owner.runs.items() if run.ended), oldest))
        if not owner.runs:
            del self._tenants[tenant]

    def _evict(self, owner: _Tenant, run_id: str) -> None:
        owner.size -= owner.runs.pop(run_id).size
        self._count -= 1

    def _charge(self, tenant: str, charged: _Run, size: int, *, new: bool = False) -> None:
        """Add to the size of a run; evicts ended runs of its tenant, oldest first, for room.

        Raises `StorageQuotaError` if there is not enough room for a new run.
        """
        owner = self._tenants[tenant]
        if owner.size + size > self._quota_bytes:
            for run_id, run in tuple(owner.runs.items()):
                if run is not charged and run.ended:
                    self._evict(owner, run_id)
                if owner.size + size <= self._quota_bytes:
                    break
            else:
                if new:
                    raise StorageQuotaError.of(self._quota_bytes)
        charged.size += size
        owner.size += size


def _size(node: NodeRecord) -> int:
    return len(node.text) + 8 * len(node.tokens)
