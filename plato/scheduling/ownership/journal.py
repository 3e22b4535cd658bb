"""Writes of a run to the context store, off the hot path."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace

from plato.context import ContextStore, NodeRecord, RunRecord, WriteBehind
from plato.context.records import pack, pack_events
from plato.errors import StorageQuotaError
from plato.runs import BEFORE_ALL, EventId, NodeReport, RunEvent, RunState
from plato.scheduling.ownership.lease import RunLease

RECORD_DEADLINE_S = 1.0
QUESTION_CHARS = 2000
"""Of the question of a run that has ended."""


class Journal:
    """Records one run: its state, its events and its finished nodes.

    Nothing is written before `open`. The lease is acquired in the background, too: decoding does
    not wait for the store. After an outage or data loss, everything is written again.
    """

    def __init__(
        self, store: ContextStore, writes: WriteBehind, lease: RunLease, state: RunState
    ) -> None:
        """The caller of `append` feeds `state` first."""
        self._store = store
        self._writes = writes
        self._lease = lease
        self._state = state
        request = state.request
        self._record = RunRecord(
            run_id=request.run_id,
            tenant=request.tenant,
            owner=lease.owner,
            fence=0,
            mode=state.mode or request.mode,
            state="running",
            nodes=state.planned_nodes,
            plan_complete=state.plan_complete,
            request=pack(request),
            created_unix_s=request.created_unix_s or time.time(),
        )
        self._nodes: dict[int, NodeRecord] = {}
        """Finished nodes; bounded by the plan."""
        self._appended = BEFORE_ALL
        """The last event written by this journal."""
        self._pending: list[RunEvent] = []
        """Events that wait for the next write; bounded like the run's output."""
        self._append_queued = False
        """Whether a write of them is queued. If the queue drops it, `keep` queues it again."""
        self._incomplete = False
        """Whether the store missed a write, so that everything must be written again."""
        self.opened = False
        """Whether the run is recorded. One that was refused is not."""
        self.refusal: StorageQuotaError | None = None
        """Why the store did not take the run, last time; then it gets nothing else of it."""
        self._closed = False
        self._end_written = False
        self._leaving = False
        """Whether the run was handed over: nothing more is written."""
        self._recorded = asyncio.Event()
        """Set after the first write of the run, successful or not, or if there will be none."""

    @property
    def degraded(self) -> tuple[str, ...]:
        """Services that were unavailable during the run."""
        complete = self._store.available and not self._incomplete
        return () if complete else ("context store",)

    @property
    def lost(self) -> bool:
        """Whether another scheduler drives the run now."""
        return self._lease.lost

    @property
    def settled(self) -> bool:
        """Whether nothing is left to write: the run is stored to its end, or never will be."""
        if self._leaving or (self._closed and not self.opened):
            return True
        return self._end_written and not self._incomplete and self._appended >= self._state.last_id

    def open(self) -> None:
        """Record the start, or the takeover, of the run, unless that was done before."""
        if self.opened:
            return
        self.opened = True
        if not self._lease.fence:
            self._writes.submit(self._lease.acquire)
        self._update()
        if self._pending:
            self._queue_append()

    async def wait_recorded(self) -> None:
        """Wait until the run is recorded, or the store has had a second to do it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RECORD_DEADLINE_S):
                await self._recorded.wait()

    def plan_finished(self) -> None:
        """Record the complete plan and the mode."""
        mode = self._state.mode or self._record.mode
        self._update(plan_complete=True, mode=mode)

    def node_finished(self, report: NodeReport, tokens: tuple[int, ...], text: str) -> None:
        """Record the output of a node."""
        node = NodeRecord(
            run_id=self._record.run_id,
            tenant=self._record.tenant,
            number=report.number,
            tokens=tokens,
            text=text,
            finish=str(report.finish),
            replica=report.replica,
            epoch=report.epoch,
        )
        self._nodes[node.number] = node
        self._writes.submit(lambda: self._put_node(node))

    def append(self, event: RunEvent) -> None:
        """Append an event to the run's log, batched with those that still wait for a write."""
        if self._leaving:
            return
        self._pending.append(event)
        if self.opened and not self._append_queued:
            self._queue_append()

    def _queue_append(self) -> None:
        self._append_queued = True
        self._writes.submit(self._append)

    def close(self, outcome: str) -> None:
        """After the last event: record the outcome, and release the lease.

        A run that was not opened is not recorded.
        """
        if not self.opened:
            self._recorded.set()
        elif not self._leaving:
            # Nobody needs the conversation of a run that has ended, but people look for questions.
            question = self._state.request.messages[-1]
            kept = replace(question, content=question.content[:QUESTION_CHARS])
            request = pack(replace(self._state.request, messages=(kept,)))
            self._update(state=outcome, request=request)
            self._writes.submit(self._lease.release)
        self._closed = True

    def hand_over(self) -> None:
        """Write the pending events, let another scheduler adopt the run, and stop writing."""
        self.open()
        self._leaving = True
        self._writes.submit(self._hand_over)

    async def _hand_over(self) -> None:
        await self._append()
        await self._lease.hand_over()

    def keep(self) -> None:
        """Renew the lease, and write what the store has missed, if it is reachable again."""
        if self.opened:
            self._writes.submit(self._keep)

    async def _keep(self) -> None:
        if self._lease.lost or self.settled:
            return
        # Also after the run's end: the store may know a later fence of this lease, whose answer
        # was lost, and then accepts no write with the last known one.
        if not await self._lease.extend():
            self._incomplete = True
            if not self._store.available:
                return
            if not await self._lease.acquire():
                self._lease.lost = self._leaving = self._store.available
                return
        if self._incomplete or self._closed:
            await self._write_again()
        elif self._pending:
            await self._append()
        if self.settled:
            await self._lease.release()

    async def _write_again(self) -> None:
        self._incomplete = False
        self._appended = BEFORE_ALL
        await self._put_run(self._record)
        for node in tuple(self._nodes.values()):
            await self._put_node(node)
        await self._append()

    async def _append(self) -> None:
        """Append to the log; if the log has a gap, the condensed events of the whole run."""
        self._append_queued = False
        events, self._pending = tuple(self._pending), []
        last = self._state.last_id
        if self.refusal is not None or self._lease.lost or self._appended >= last:
            return
        after: EventId | None = None
        if events and _is_next(events[0].id, self._appended):
            last, after = events[-1].id, self._appended
        elif self._leaving:
            return
        else:
            events = self._state.events()
        record = self._record
        done = await self._store.append_events(
            record.tenant, record.run_id, last, self._lease.fence, pack_events(events), after=after
        )
        if done:
            self._appended = last
        else:
            self._incomplete = True

    def _update(self, **changes: object) -> None:
        nodes = self._state.planned_nodes
        self._record = record = replace(self._record, nodes=nodes, **changes)  # type: ignore[arg-type]
        self._writes.submit(lambda: self._put_run(record))

    async def _put_run(self, record: RunRecord) -> None:
        try:
            # The fence is known only once the lease is acquired, in a write before this one.
            done = await self._store.put_run(replace(record, fence=self._lease.fence))
            self.refusal = None
        except StorageQuotaError as error:
            done, self.refusal = False, error
        if done:
            self._end_written = record.state != "running"
        else:
            self._incomplete = True
        self._recorded.set()

    async def _put_node(self, node: NodeRecord) -> None:
        if self.refusal is not None:
            return
        if not await self._store.put_node(node, self._lease.fence):
            self._incomplete = True


def _is_next(event: EventId, last: EventId) -> bool:
    """Whether `event` directly follows `last`."""
    if last == BEFORE_ALL:
        return event == EventId(1, 0)
    return event == EventId(last.term, last.number + 1)
