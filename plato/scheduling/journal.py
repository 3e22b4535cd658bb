"""What a run writes into the context store, off the hot path."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from plato.context import NodeRecord, RunRecord, WriteBehind
from plato.context.protocol import ContextStore
from plato.context.records import pack, pack_events
from plato.engine import GenerateRequest, Segment
from plato.graph import PlanGraph
from plato.history import History
from plato.runs import BEFORE_ALL, EventId, Mode, RunEvent, RunRequest
from plato.scheduling.decoding import NodeProgress
from plato.scheduling.placement import ReplicaTable


class Journal:
    """Records one run: its state, its events, its finished nodes, and where their KV lies.

    Ownership of the run is taken in the background too: decoding does not wait for the store. A
    store that was away, or has lost everything, gets all of it again when it is back.
    """

    def __init__(
        self,
        store: ContextStore,
        writes: WriteBehind,
        replicas: ReplicaTable,
        owner: str,
        ttl_s: float,
        history: History,
        *,
        fence: int | None = None,
        force: bool = False,
    ) -> None:
        """`history` is what is known of the run, and is kept up by whoever calls `logged`.

        `fence` is given where the ownership has been taken already; with `force` it is taken from
        whoever has it, because its owner was seen dying.
        """
        self._store = store
        self._writes = writes
        self._replicas = replicas
        self._owner = owner
        self._ttl_s = ttl_s
        self._history = history
        self._record: RunRecord | None = None
        self._nodes: dict[int, NodeRecord] = {}
        """Finished nodes; bounded by the plan."""
        self._fence = fence or 0
        self._force = force
        self._logged = BEFORE_ALL
        """The last event that the store has; none of a run that was taken over."""
        self._unlogged: tuple[RunEvent, ...] = ()
        """Events that wait for the next write; bounded like the run's output."""
        self._append_waits = False
        """Whether a write of them is queued. The queue may drop it: `keep` asks again."""
        self._missed = False
        """Whether the store has missed a write, and has to get everything again."""
        self._closed = False
        self._end_written = False
        self.recorded = asyncio.Event()
        """Set once the store has been told of the run, whether it was there or not."""
        self._leaving = False
        """Whether the run is handed over: what happens to it here is of no concern to others."""
        self.lost = False
        """Whether another scheduler drives the run now."""

    @property
    def degraded(self) -> tuple[str, ...]:
        """What the run had to do without."""
        return () if self._store.available and not self._missed else ("context store",)

    @property
    def settled(self) -> bool:
        """Whether the run has ended and the store has all of it, or another scheduler the run."""
        return self._leaving or (
            self._end_written and not self._missed and self._logged >= self._history.last_id
        )

    def opened(self, request: RunRequest) -> None:
        """The run has started, or is taken over."""
        self._record = RunRecord(
            run=request.run,
            tenant=request.tenant,
            owner=self._owner,
            fence=0,
            mode=self._history.mode or request.mode,
            state="running",
            nodes=self._history.nodes,
            plan_complete=self._history.plan_complete,
            request=pack(request),
            created_unix_s=time.time(),
        )
        if not self._fence:
            self._writes.submit(self._acquire)
        self._put()

    def planned(self, graph: PlanGraph, mode: Mode) -> None:
        """The plan is complete, and the question is answered in `mode`."""
        self._update(graph, plan_complete=True, mode=mode)

    def node_done(self, request: GenerateRequest, progress: NodeProgress) -> None:
        """A node is finished: keep its output, and note who should hold its KV."""
        prompt = request.prompt.extended(Segment(tuple(progress.emitted)))
        self._replicas.learn(prompt, progress.replica, missing=1)
        tenant = request.prompt.tenant
        node = NodeRecord(
            run=request.run,
            tenant=tenant,
            number=progress.node.number,
            tokens=tuple(progress.emitted),
            text=progress.text,
            finish=str(progress.finish),
            replica=progress.replica,
            epoch=progress.epoch,
        )
        self._nodes[node.number] = node
        self._writes.submit(lambda: self._put_node(node))

    def logged(self, events: tuple[RunEvent, ...]) -> None:
        """Append events to the run's log. The history has them already.

        What comes while a write waits goes with it: a slow store gets fewer and larger ones.
        """
        if self._leaving:
            return
        self._unlogged += events
        if not self._append_waits:
            self._append_waits = True
            self._writes.submit(self._append)

    def closed(self, graph: PlanGraph, state: str) -> None:
        """The run has ended; its ownership is given up once its log is complete."""
        if not self._leaving:
            self._update(graph, state=state)
        self._closed = True

    def released(self) -> None:
        """Nothing more will be logged: give the ownership up."""
        record = self._record
        if record is not None and not self._leaving:
            self._writes.submit(
                lambda: self._store.release(record.tenant, record.run, self._owner, self._fence)
            )

    def hand_over(self) -> None:
        """Let another scheduler have the run: nothing that happens to it from now on is written."""
        self._leaving = True
        self._writes.submit(self._hand_over)

    async def _hand_over(self) -> None:
        await self._append()
        record = self._record
        if record is not None:
            self.lost = True
            # An ownership that runs out at once is one that others look for.
            await self._store.extend(record.tenant, record.run, self._owner, self._fence, 0.001)

    def keep(self) -> None:
        """Keep the ownership, and write what the store has missed, if it is back."""
        self._writes.submit(self._keep)

    async def _keep(self) -> None:
        record = self._record
        if record is None or self.lost:
            return
        if not self._closed and not await self._store.extend(
            record.tenant, record.run, self._owner, self._fence, self._ttl_s
        ):
            if not self._store.available:
                self._missed = True
                return
            # The store has forgotten the lease, or somebody else has it.
            await self._acquire()
            if not self._fence:
                self.lost = self._leaving = self._store.available
                return
            self._missed = True
        if self._missed or (self._closed and not self.settled):
            await self._write_again()
        elif self._unlogged:
            await self._append()

    async def _write_again(self) -> None:
        record = self._record
        assert record is not None
        self._missed = False
        self._logged = BEFORE_ALL
        await self._put_run(record)
        for node in tuple(self._nodes.values()):
            await self._put_node(node)
        await self._append()

    async def _append(self) -> None:
        """Append to the log; all that is known so far where the log has a gap."""
        self._append_waits = False
        events, self._unlogged = self._unlogged, ()
        record = self._record
        last = self._history.last_id
        if record is None or self.lost or self._logged >= last:
            return
        after: EventId | None = None
        if events and _follows(events[0].id, self._logged):
            last, after = events[-1].id, self._logged
        elif self._leaving:
            return
        else:
            events = self._history.events()
        done = await self._store.append_events(
            record.tenant, record.run, last, self._fence, pack_events(events), after=after
        )
        if done:
            self._logged = last
        else:
            self._missed = True

    def _update(self, graph: PlanGraph, **changes: object) -> None:
        if self._record is not None:
            self._record = replace(self._record, nodes=tuple(graph), **changes)  # type: ignore[arg-type]
            self._put()

    def _put(self) -> None:
        record = self._record
        assert record is not None
        self._writes.submit(lambda: self._put_run(record))

    async def _put_run(self, record: RunRecord) -> None:
        # The fence is known only when the ownership has been taken, in a write before this one.
        if await self._store.put_run(replace(record, fence=self._fence)):
            self._end_written = record.state != "running"
        else:
            self._missed = True
        self.recorded.set()

    async def _put_node(self, node: NodeRecord) -> None:
        if not await self._store.put_node(node):
            self._missed = True

    async def _acquire(self) -> None:
        assert self._record is not None
        record = self._record
        fence = await self._store.acquire(
            record.tenant, record.run, self._owner, self._ttl_s, force=self._force
        )
        self._fence = fence or 0
        # Once: who takes the run from us after this has a reason to.
        self._force = self._force and fence is None


def _follows(event: EventId, last: EventId) -> bool:
    """Whether `event` is the next one in the log; the first event of a run follows nothing."""
    if last == BEFORE_ALL:
        return event == EventId(1, 0)
    return event == EventId(last.term, last.number + 1)
