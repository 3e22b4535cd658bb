"""What a run writes into the context store, off the hot path."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from plato.context import KVHandle, NodeRecord, RunRecord, WriteBehind
from plato.context.protocol import ContextStore
from plato.engine import GenerateRequest, Segment
from plato.graph import PlanGraph
from plato.runs import Mode, RunRequest
from plato.scheduling.decoding import NodeProgress
from plato.scheduling.placement import Placement

PackRequest = Callable[[RunRequest], bytes]


class Journal:
    """Records one run: its state, its finished nodes, and where their KV lies.

    Ownership of the run is taken in the background too: decoding does not wait for the store.
    """

    def __init__(
        self,
        store: ContextStore,
        writes: WriteBehind,
        placement: Placement,
        owner: str,
        ttl_s: float,
        pack: PackRequest,
    ) -> None:
        self._store = store
        self._writes = writes
        self._placement = placement
        self._owner = owner
        self._ttl_s = ttl_s
        self._pack = pack
        self._record: RunRecord | None = None
        self._fence = 0

    @property
    def degraded(self) -> tuple[str, ...]:
        """What the run had to do without."""
        return () if self._store.available else ("context store",)

    def opened(self, request: RunRequest) -> None:
        """The run has started."""
        self._record = RunRecord(
            run=request.run,
            tenant=request.tenant,
            owner=self._owner,
            fence=0,
            mode=request.mode,
            state="running",
            nodes=(),
            plan_complete=False,
            request=self._pack(request),
            created_unix_s=time.time(),
        )
        self._writes.submit(self._acquire)
        self._put()

    def planned(self, graph: PlanGraph, mode: Mode) -> None:
        """The plan is complete, and the question is answered in `mode`."""
        self._update(graph, plan_complete=True, mode=mode)

    def node_done(self, request: GenerateRequest, progress: NodeProgress) -> None:
        """A node is finished: keep its output, and note who holds its KV."""
        prompt = request.prompt.extended(Segment(tuple(progress.emitted)))
        self._placement.learn(prompt, progress.replica, progress.epoch, missing=1)
        tenant = request.prompt.tenant
        self._writes.put_node(
            NodeRecord(
                run=request.run,
                tenant=tenant,
                number=progress.node.number,
                tokens=tuple(progress.emitted),
                text=progress.text,
                finish=str(progress.finish),
                replica=progress.replica,
                epoch=progress.epoch,
            )
        )
        held = 0
        handles: list[KVHandle] = []
        for chain, segment in zip(prompt.hashes, prompt.segments, strict=True):
            held += len(segment.tokens)
            tokens = min(held, len(prompt) - 1)
            handles.append(KVHandle(chain, tokens, progress.replica, progress.epoch))
        # The last prompt segment and the output name everything a dependent can continue.
        self._writes.put_handles(tenant, tuple(handles[-2:]))

    def closed(self, graph: PlanGraph, state: str) -> None:
        """The run has ended; its ownership is given up."""
        self._update(graph, state=state)
        if self._record is not None:
            record = self._record
            self._writes.submit(
                lambda: self._store.release(record.tenant, record.run, self._owner, self._fence)
            )

    def _update(self, graph: PlanGraph, **changes: object) -> None:
        if self._record is not None:
            self._record = replace(self._record, nodes=tuple(graph), **changes)  # type: ignore[arg-type]
            self._put()

    def _put(self) -> None:
        record = self._record
        assert record is not None
        # The fence is known only when the write before this one has been made.
        self._writes.submit(lambda: self._store.put_run(replace(record, fence=self._fence)))

    async def _acquire(self) -> None:
        assert self._record is not None
        fence = await self._store.acquire(
            self._record.tenant, self._record.run, self._owner, self._ttl_s
        )
        self._fence = fence or 0
