"""The graph scheduler: answers questions over a planner, a decoder pool and a context store."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing, suppress

from plato.composing import Composer
from plato.context import ContextStore, WriteBehind
from plato.engine import Lease
from plato.errors import PlatoError, UnavailableError
from plato.history import History
from plato.metrics import NO_METRICS, Recorder
from plato.metrics.recording import record_run
from plato.metrics.table import RUNS_TAKEN_OVER
from plato.planning.protocol import Planner
from plato.prompting.layout import Layout
from plato.runs import (
    BEFORE_ALL,
    EventId,
    RunEvent,
    RunFailed,
    RunFinished,
    RunRequest,
    RunSnapshot,
)
from plato.scheduling.admission import Admission
from plato.scheduling.config import SchedulerConfig
from plato.scheduling.decoding import NodeDecoder
from plato.scheduling.feed import KVFeed
from plato.scheduling.journal import Journal
from plato.scheduling.leases import LeaseKeeper
from plato.scheduling.live import LiveRun
from plato.scheduling.placement import Placement, Policy
from plato.scheduling.protocol import DecoderPool
from plato.scheduling.run import Run
from plato.scheduling.run_log import RunLog, scheduler_name
from plato.scheduling.stats import SchedulerStats
from plato.tasks import end_task

logger = logging.getLogger(__name__)

MAINTENANCES = 3
"""Rounds of maintenance within the life of an ownership."""
MAX_LINGERING = 256
FIRST_TERM = 1
RECORD_DEADLINE_S = 1.0
FOLLOW_INTERVAL_S = 0.25
"""How often the event log is read for a run that another scheduler drives."""


class GraphScheduler:
    """Runs graphs. One instance a process; an asyncio program that never blocks.

    The same code drives an engine in this process (`plato.runtime`) and replicas behind Ray Serve
    handles (`deployments`). Runs are owned: by lease and fencing token in the context store, so
    that one scheduler drives a run at a time, and another can go on when it dies.
    """

    def __init__(
        self,
        *,
        config: SchedulerConfig,
        layout: Layout,
        planner: Planner,
        pool: DecoderPool,
        store: ContextStore,
        decode_prompt: Callable[[tuple[int, ...]], str],
        decode_output: Callable[[tuple[int, ...]], str],
        policy: Policy | None = None,
        name: str = "scheduler",
        now: Callable[[], float] = time.monotonic,
        recorder: Recorder = NO_METRICS,
    ) -> None:
        """Take over the parts; `close` ends what was started here, but not the parts."""
        self._recorder = recorder
        self._config = config
        self._layout = layout
        self._planner = planner
        self._store = store
        self._decode_prompt = decode_prompt
        self._decode_output = decode_output
        self._now = now
        # A name alone would let a restarted scheduler keep its predecessor's sequences alive.
        self._owner = f"{name}:{uuid.uuid4().hex[:8]}"
        self._lease = Lease(self._owner, config.lease_ttl_s)
        self._leases = LeaseKeeper(
            pool, self._owner, config.lease_ttl_s, silence_s=config.silence_s
        )
        self._placement = Placement(policy)
        self._feed = KVFeed(store, pool, self._placement.replicas)
        self._following: asyncio.Task[None] | None = None
        self._decoder = NodeDecoder(pool, self._placement, self._leases, config, now, recorder)
        self._log = RunLog(store)
        self._writes = WriteBehind()
        self._admission = Admission(
            max_running=config.max_runs,
            max_waiting=config.max_waiting_runs,
            patience_s=config.patience_s,
            room=self._placement.replicas.has_room,
        )
        self._runs: dict[str, LiveRun] = {}
        """Runs in flight by id, at most `max_runs` and those taken over."""
        self._lingering: dict[str, tuple[LiveRun, float]] = {}
        """Ended runs until the store has all of them, and until when they are kept; at most
        `MAX_LINGERING`."""
        self._maintenance: asyncio.Task[None] | None = None
        self._draining = False

    @property
    def placement(self) -> Placement:
        """Where sequences go, and how well that was predicted."""
        return self._placement

    @property
    def runs(self) -> frozenset[str]:
        """Runs in flight."""
        return frozenset(self._runs)

    def stats(self) -> SchedulerStats:
        """State and counters."""
        return SchedulerStats(
            running=len(self._runs),
            waiting=self._admission.waiting,
            avoided=self._placement.replicas.avoided,
            silences=self._leases.silences,
            snapshots=self._feed.snapshots,
            writes_pending=self._writes.pending,
            writes_dropped=self._writes.dropped,
        )

    def start(self) -> None:
        """Look after ownerships, and for runs that have lost their scheduler, from now on."""
        if self._maintenance is None:
            self._maintenance = asyncio.create_task(self._maintain(), name="run-maintenance")
            self._following = asyncio.create_task(self._feed.follow(), name="kv-feed")

    async def run(
        self, request: RunRequest, history: tuple[RunEvent, ...] | None = None
    ) -> AsyncGenerator[tuple[RunEvent, ...]]:
        """Answer one question; the last event is `RunFinished` or `RunFailed`.

        `history` is what the caller has received of this run from a scheduler that has died, if
        one has; the run goes on from there, and nothing of it is sent again. Events that wait
        together come together: a cluster carries only so many messages.

        Closing the iterator cancels the plan and every node of the run, in every engine.
        """
        past = History(history or ())
        after = past.last_id
        try:
            if history is None:
                live = await self._open(request)
            elif (known := self._runs.get(request.run)) is not None:
                # It was an orphan, and this scheduler has it already. What the caller has of it
                # comes from elsewhere: to repeat is safe, and to leave out is not.
                live, after = known, BEFORE_ALL
            else:
                live = await self._take_over(request, past)
        except PlatoError as error:
            yield (_refusal(request, error),)
            return
        try:
            async with aclosing(live.follow(after)) as batches:
                async for events in batches:
                    yield events
        finally:
            if not live.over:
                await live.cancel()

    async def open(self, request: RunRequest) -> None:
        """Start a run that goes on whoever follows it.

        Raises `OverloadedError` or `UnavailableError` where there is no room.
        """
        live = await self._open(request)
        # Whoever hears of it may ask another scheduler for it.
        with suppress(TimeoutError):
            async with asyncio.timeout(RECORD_DEADLINE_S):
                await live.journal.recorded.wait()

    async def follow(
        self, tenant: str, run: str, after: EventId = BEFORE_ALL
    ) -> AsyncGenerator[tuple[RunEvent, ...]]:
        """Batches of events with ids above `after`, until the run has ended.

        From memory if the run is driven here, else from the event log. Raises
        `RunNotFoundError`, or `UnavailableError` if nobody can know.
        """
        live = self._live(tenant, run)
        if live is not None:
            async with aclosing(live.follow(after)) as batches:
                async for events in batches:
                    yield events
            return
        deadline = self._now() + self._config.run_deadline_s
        await self._log.require(tenant, run)
        while True:
            events = await self._log.events(tenant, run, after)
            if events:
                yield events
                after = max(event.id for event in events)
                if _is_end(events[-1]):
                    return
            elif (live := self._live(tenant, run)) is not None:
                # Taken over by this scheduler meanwhile.
                async with aclosing(live.follow(after)) as batches:
                    async for events in batches:
                        yield events
                return
            elif self._now() > deadline:
                raise UnavailableError(
                    f"nothing was heard of run {run}; ask for it again later", retry_after_s=5.0
                )
            else:
                await asyncio.sleep(FOLLOW_INTERVAL_S)

    async def snapshot(self, tenant: str, run: str) -> RunSnapshot:
        """A run as it stands. Raises as `follow` does."""
        live = self._live(tenant, run)
        if live is not None:
            return RunSnapshot(live.request, live.history.events())
        return await self._log.snapshot(tenant, run)

    async def owner(self, tenant: str, run: str) -> str | None:
        """Name of the scheduler that drives a run, as far as the store knows."""
        if self._live(tenant, run) is not None:
            return scheduler_name(self._owner)
        return await self._log.owner(tenant, run)

    async def cancel(self, tenant: str, run: str) -> bool:
        """Cancel a run if it is driven here; whether it was."""
        live = self._live(tenant, run)
        if live is None:
            return False
        await live.cancel()
        return True

    async def drain(self) -> None:
        """Take no more runs, and hand those that nobody waits for to other schedulers."""
        self._draining = True
        for live in tuple(self._runs.values()):
            if not live.followers:
                live.journal.hand_over()
                await live.cancel("handed_over", "another scheduler goes on with this run")
        await self._writes.close()

    async def close(self) -> None:
        """Cancel what runs, stop renewing leases, and write what is queued."""
        for task in (self._maintenance, self._following):
            if task is not None:
                await end_task(task)
        for live in tuple(self._runs.values()):
            await live.cancel()
        await self._leases.close()
        await self._writes.close()

    async def _open(self, request: RunRequest) -> LiveRun:
        if self._draining:
            raise UnavailableError("this scheduler is shutting down; try again", retry_after_s=1.0)
        held = AsyncExitStack()
        await held.enter_async_context(self._admission.admitted(request.tenant))
        return self._drive(request, History(), held)

    async def _take_over(
        self, request: RunRequest, history: History, fence: int | None = None
    ) -> LiveRun:
        """Go on with a run. It has been admitted before, so it does not wait again."""
        await self._log.complete(request, history)
        # Fences are about the time; without one, the time itself is the next best thing.
        term = max(history.last_id.term + 1, fence or round(time.time() * 1000))
        self._recorder.add(RUNS_TAKEN_OVER)
        logger.warning("taking a run over", extra={"run": request.run, "term": term})
        return self._drive(
            request, history, AsyncExitStack(), fence, term=term, force=fence is None
        )

    def _drive(
        self,
        request: RunRequest,
        history: History,
        held: AsyncExitStack,
        fence: int | None = None,
        *,
        term: int = FIRST_TERM,
        force: bool = False,
    ) -> LiveRun:
        self.start()
        journal = Journal(
            self._store,
            self._writes,
            self._placement.replicas,
            self._owner,
            self._config.ownership_ttl_s,
            history,
            fence=fence,
            force=force,
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
            decode_text=self._decode_prompt,
            composer=Composer(
                self._decode_output,
                headings=request.headings,
                max_tokens=request.max_tokens,
                stop=request.stop,
            ),
            now=self._now,
            past=History(history.events()),
            term=term,
            recorder=self._recorder,
        )
        live = LiveRun(run, request, journal, history, held, self._ended)
        self._runs[request.run] = live
        return live

    def _ended(self, live: LiveRun) -> None:
        run = live.request.run
        if self._runs.get(run) is live:
            del self._runs[run]
        while len(self._lingering) >= MAX_LINGERING:
            del self._lingering[next(iter(self._lingering))]
        self._lingering[run] = live, self._now() + self._config.linger_s
        self._note_end(run, live.history.ended)

    def _note_end(self, run: str, ended: RunFinished | RunFailed | None) -> None:
        assert ended is not None, "a run is over without its last event"
        record_run(self._recorder, ended)
        said: dict[str, object] = {"run": run, "outcome": type(ended).__name__}
        if isinstance(ended, RunFailed):
            said |= {"code": ended.code, "error": ended.message}
        if (report := ended.report) is not None:
            said |= {"mode": report.mode, "reason": report.reason, "seconds": report.duration_s}
        logger.info("run ended", extra=said)

    def _live(self, tenant: str, run: str) -> LiveRun | None:
        live = self._runs.get(run)
        if live is None and run in self._lingering:
            live = self._lingering[run][0]
        return live if live is not None and live.request.tenant == tenant else None

    async def _maintain(self) -> None:
        interval_s = self._config.ownership_ttl_s / MAINTENANCES
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self._look_after_runs()
                await self._adopt_orphans()
            except Exception:
                logger.exception("looking after the runs failed; it goes on")

    async def _look_after_runs(self) -> None:
        self._admission.recheck()
        for live in tuple(self._runs.values()):
            if live.journal.lost:
                logger.warning("another scheduler has a run", extra={"run": live.request.run})
                await live.cancel("taken_over", "another scheduler goes on with this run")
            else:
                live.journal.keep()
        for run, (live, until) in tuple(self._lingering.items()):
            if live.journal.settled or self._now() > until:
                del self._lingering[run]
            else:
                live.journal.keep()

    async def _adopt_orphans(self) -> None:
        if self._draining or not self._store.available:
            return
        for tenant, run in await self._store.orphans():
            if run in self._runs:
                continue
            fence = await self._store.acquire(
                tenant, run, self._owner, self._config.ownership_ttl_s
            )
            if fence is not None:
                await self._adopt(tenant, run, fence)

    async def _adopt(self, tenant: str, run: str, fence: int) -> None:
        """Go on with a run whose scheduler is gone, or forget it if it has ended."""
        found = await self._log.unfinished(tenant, run)
        if found is None:
            await self._store.release(tenant, run, self._owner, fence)
            await self._store.forget(tenant, run)
            return
        await self._take_over(*found, fence)


def _is_end(event: RunEvent) -> bool:
    return isinstance(event, RunFinished | RunFailed)


def _refusal(request: RunRequest, error: PlatoError) -> RunFailed:
    return RunFailed(
        run=request.run,
        at_s=0.0,
        status=error.status,
        type=error.type,
        code=error.code,
        message=error.message,
        param=error.param,
        retry_after_s=error.retry_after_s,
    )
