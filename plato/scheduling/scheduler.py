"""The graph scheduler: answers questions over a planner, a decoder pool and a context store."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from plato.context import ContextStore, WriteBehind
from plato.engine import Lease
from plato.errors import OverloadedError
from plato.planning.protocol import Planner
from plato.prompting.layout import Layout
from plato.runs import RunEvent, RunFailed, RunFinished, RunRequest
from plato.scheduling.config import SchedulerConfig
from plato.scheduling.decoding import RETRY_AFTER_S, NodeDecoder
from plato.scheduling.journal import Journal, PackRequest
from plato.scheduling.leases import LeaseKeeper
from plato.scheduling.placement import Placement
from plato.scheduling.protocol import DecoderPool
from plato.scheduling.run import Run

logger = logging.getLogger(__name__)


class GraphScheduler:
    """Runs graphs. One instance a process; an asyncio program that never blocks.

    The same code drives an engine in this process (`plato.runtime`) and replicas behind Ray Serve
    handles (`deployments`).
    """

    def __init__(
        self,
        *,
        config: SchedulerConfig,
        layout: Layout,
        planner: Planner,
        pool: DecoderPool,
        store: ContextStore,
        pack: PackRequest,
        decode_text: Callable[[tuple[int, ...]], str],
        name: str = "scheduler",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take over the parts; `close` ends what was started here, but not the parts."""
        self._config = config
        self._layout = layout
        self._planner = planner
        self._store = store
        self._pack = pack
        self._decode_text = decode_text
        self._now = now
        # A name alone would let a restarted scheduler keep its predecessor's sequences alive.
        self._owner = f"{name}:{uuid.uuid4().hex[:8]}"
        self._lease = Lease(self._owner, config.lease_ttl_s)
        self._leases = LeaseKeeper(pool, self._owner, config.lease_ttl_s)
        self._placement = Placement()
        self._decoder = NodeDecoder(pool, self._placement, self._leases, now)
        self._writes = WriteBehind(store)
        self._runs: set[str] = set()
        """Runs in flight, at most `max_runs`."""

    @property
    def runs(self) -> frozenset[str]:
        """Runs in flight."""
        return frozenset(self._runs)

    async def run(self, request: RunRequest) -> AsyncGenerator[tuple[RunEvent, ...]]:
        """Answer one question; the last event is `RunFinished` or `RunFailed`.

        Events that wait together come together: a cluster carries only so many messages.

        Closing the iterator cancels the plan and every node of the run, in every engine.
        """
        if len(self._runs) >= self._config.max_runs:
            error = OverloadedError(
                f"{len(self._runs)} questions are being answered already; try again in a moment"
            )
            failed = RunFailed(
                run=request.run,
                at_s=0.0,
                status=error.status,
                type=error.type,
                code=error.code,
                message=error.message,
                retry_after_s=RETRY_AFTER_S,
            )
            yield (failed,)
            return
        journal = Journal(
            self._store,
            self._writes,
            self._placement,
            self._owner,
            self._config.run_deadline_s,
            self._pack,
        )
        run = Run(
            request,
            config=self._config,
            layout=self._layout,
            planner=self._planner,
            decoder=self._decoder,
            leases=self._leases,
            lease=self._lease,
            journal=journal,
            decode_text=self._decode_text,
            now=self._now,
        )
        self._runs.add(request.run)
        outcome = "cancelled"
        try:
            async with aclosing(run.events()) as batches:
                async for events in batches:
                    if isinstance(events[-1], RunFinished | RunFailed):
                        outcome = type(events[-1]).__name__
                    yield events
        finally:
            self._runs.discard(request.run)
            logger.info("run ended", extra={"run": request.run, "outcome": outcome})

    async def close(self) -> None:
        """Stop renewing leases and write what is queued."""
        await self._leases.close()
        await self._writes.close()
