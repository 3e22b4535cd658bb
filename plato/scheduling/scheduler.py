"""The graph scheduler: drives runs with a planner, a decoder pool and a context store."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace

from plato.context import ContextStore, WriteBehind
from plato.engine import DecoderPool
from plato.errors import PlatoError, UnavailableError
from plato.metrics import NO_METRICS, Recorder
from plato.metrics.recording import record_run
from plato.metrics.table import RUNS_TAKEN_OVER
from plato.planning.protocol import Planner
from plato.prompting.model_tools import ModelTools
from plato.runs import (
    BEFORE_ALL,
    FIRST_TERM,
    EventId,
    RunError,
    RunEvents,
    RunFailed,
    RunRequest,
    RunState,
)
from plato.runs.token_rates import TokenRates
from plato.scheduling.admission import Admission
from plato.scheduling.kv_events import KVEventFollower
from plato.scheduling.leases import LeaseKeeper
from plato.scheduling.node_decoder import NodeDecoder
from plato.scheduling.ownership.journal import Journal
from plato.scheduling.ownership.lease import RunLease
from plato.scheduling.ownership.registry import RunRegistry
from plato.scheduling.ownership.stored_runs import StoredRuns
from plato.scheduling.placement import Placement, Policy
from plato.scheduling.run import Run
from plato.scheduling.services import Services
from plato.scheduling.stats import SchedulerStats
from plato.scheduling.stream_interval import StreamInterval
from plato.settings import Settings
from plato.tasks import end_task
from plato.tracing import RunObserver

logger = logging.getLogger(__name__)


class GraphScheduler:
    """Drives runs; one instance per process, on its event loop.

    The same code drives an engine in this process (`plato.runtime`) and replicas behind Ray Serve
    handles (`deployments`). One scheduler drives a run at any time; see `ownership`.
    """

    def __init__(
        self,
        settings: Settings,
        model: ModelTools,
        *,
        planner: Planner,
        pool: DecoderPool,
        store: ContextStore,
        policy: Policy,
        name: str = "scheduler",
        recorder: Recorder = NO_METRICS,
        losses: tuple[str, ...] = (),
        observer: RunObserver | None = None,
    ) -> None:
        """`losses` are those of the engines, for reports. `close` closes neither pool nor store."""
        self.fingerprint = model.fingerprint
        """Of the model whose runs it drives."""
        # A name alone would let a restarted scheduler keep its predecessor's sequences alive.
        self._owner = f"{name}:{uuid.uuid4().hex[:8]}"
        self._settings = settings
        self._store = store
        self._recorder = recorder
        self.placement = Placement(policy)
        """Chooses replicas for sequences."""
        leases = LeaseKeeper(pool, self._owner, settings.lease_ttl_s, silence_s=settings.silence_s)
        decoder = NodeDecoder(pool, self.placement, leases, settings, recorder)
        interval = StreamInterval(settings.stream_interval_s)
        self._services = Services(
            settings, model, planner, decoder, leases, interval, recorder, losses
        )
        self._kv_events = KVEventFollower(store, pool, self.placement.replicas)
        self._writes = WriteBehind()
        self._admission = Admission(
            max_running=settings.max_runs,
            max_waiting=settings.max_waiting_runs,
            patience_s=settings.patience_s,
            max_tenant=settings.max_tenant_runs,
            room=self.placement.replicas.has_room,
        )
        self._rates = TokenRates(settings.tenant_tokens_per_minute)
        self._stored = StoredRuns(store, model.fingerprint)
        self.runs = RunRegistry(store, self._stored, self._owner, settings)
        """Runs of this scheduler; also follows runs of other schedulers."""
        self._background: list[asyncio.Task[None]] = []
        self._observer = observer
        self._draining = False

    def stats(self) -> SchedulerStats:
        """State and counters."""
        return SchedulerStats(
            running=len(self.runs),
            waiting=self._admission.waiting,
            branches_waiting=self._services.decoder.branches.waiting,
            avoided=self.placement.replicas.avoided,
            silences=self._services.leases.silences,
            snapshots=self._kv_events.snapshots,
            writes_pending=self._writes.pending,
            writes_dropped=self._writes.dropped,
        )

    def start(self) -> None:
        """Start to follow KV events, renew the leases of runs, and adopt orphaned runs."""
        if not self._background:
            maintenance = self.runs.maintain(self._take_over, self._admission.recheck)
            self._background = [
                asyncio.create_task(maintenance, name="run-maintenance"),
                asyncio.create_task(self._kv_events.follow(), name="kv-events"),
            ]

    @asynccontextmanager
    async def attached(
        self, request: RunRequest, received: RunEvents | None = None
    ) -> AsyncIterator[tuple[Run, EventId]]:
        """Attach to a run; it is cancelled on exit, unless another caller is attached.

        With `received`, the events received from a scheduler that failed, the run is taken over,
        or joined if this scheduler drives it already. Yields the run and the id after which to
        follow it. Raises a `PlatoError` if it cannot be started.
        """
        after = BEFORE_ALL
        if received is None:
            run = await self._admit(request)
        elif (found := self.runs.find(request.tenant, request.run_id)) is not None:
            # Ids of another scheduler may not match this log; repeated events are safe.
            run = found
        else:
            state = RunState(request, received)
            after = state.last_id
            run = await self._take_over(state)
        token = run.attach()
        try:
            yield run, after
        finally:
            await run.detach(token)

    async def run(
        self,
        request: RunRequest,
        received: RunEvents | None = None,
        heartbeat_s: float | None = None,
    ) -> AsyncGenerator[RunEvents]:
        """Answer one question; the last event is `RunFinished` or `RunFailed`.

        Closing the iterator detaches from the run; see `attached`, also for `received`. Yields an
        empty batch whenever `heartbeat_s` has passed without an event.
        """
        async with AsyncExitStack() as stack:
            try:
                attached = self.attached(request, received)
                run, after = await stack.enter_async_context(attached)
            except PlatoError as error:
                yield (RunFailed.of(error, request.run_id),)
                return
            batches = run.log.follow(after, heartbeat_s)
            async for events in await stack.enter_async_context(aclosing(batches)):
                yield events

    async def open(self, request: RunRequest) -> None:
        """Start a detached run.

        Raises `OverloadedError` or `UnavailableError`, `StorageQuotaError` if the store does not
        take it, and the run's error if its question is refused.
        """
        run = await self._admit(request)
        # The client may ask another scheduler for it next.
        await run.journal.wait_recorded()
        if run.journal.refusal is not None:
            # An attached run is only degraded; of this one, nothing would be left to ask for.
            refusal = run.journal.refusal
            await run.cancel()
            raise refusal
        if isinstance(run.state.ended, RunFailed) and not run.journal.opened:
            raise RunError(run.state.ended)

    async def drain(self) -> None:
        """Admit no more runs, and hand runs without followers to other schedulers."""
        self._draining = True
        await self.runs.hand_over()
        await self._writes.close()

    async def close(self) -> None:
        """Cancel all runs, stop renewing leases, and flush queued writes."""
        for task in self._background:
            await end_task(task)
        await self.runs.close()
        await self._services.leases.close()
        await self._writes.close()

    async def _admit(self, request: RunRequest) -> Run:
        if self._draining:
            raise UnavailableError("this scheduler is shutting down; try again", retry_after_s=1.0)
        self._refuse_other_model(request)
        self._rates.require(request.tenant)
        await self._admission.enter(request.tenant)
        request = replace(request, admitted_unix_s=time.time())
        try:
            return self._drive(RunState(request), term=FIRST_TERM, admitted=True)
        except BaseException:
            self._admission.leave(request.tenant)
            raise

    async def _take_over(self, state: RunState, fence: int = 0) -> Run:
        """Resume a run from another scheduler; already admitted there, it does not wait here."""
        self._refuse_other_model(state.request)
        await self._stored.add_finished_nodes(state)
        # Fences are Unix milliseconds, too: terms must exceed those of any other scheduler.
        term = max(state.last_id.term + 1, fence or round(time.time() * 1000))
        if fence:
            # Of an orphan. The caller of an attached run counts itself.
            state.request = replace(state.request, takeovers=state.request.takeovers + 1)
        self._recorder.add(RUNS_TAKEN_OVER)
        logger.warning("taking over run", extra={"run": state.request.run_id, "term": term})
        return self._drive(state, term=term, fence=fence, force=not fence)

    def _refuse_other_model(self, request: RunRequest) -> None:
        """Raise `UnavailableError` if a run is not for this scheduler's model."""
        if request.fingerprint not in ("", self.fingerprint):
            raise UnavailableError(
                f"run {request.run_id} is for the model {request.fingerprint}, and this scheduler "
                f"has {self.fingerprint}; ask again when the update has ended",
                retry_after_s=5.0,
            )

    def _drive(
        self,
        state: RunState,
        *,
        term: int,
        fence: int = 0,
        force: bool = False,
        admitted: bool = False,
    ) -> Run:
        self.start()
        state.request = request = replace(state.request, fingerprint=self.fingerprint)
        lease = RunLease(
            self._store,
            request.tenant,
            request.run_id,
            self._owner,
            self._settings.ownership_ttl_s,
            fence,
            force=force,
        )

        def on_end(run: Run) -> None:
            self.runs.ended(run)
            if admitted:
                self._admission.leave(request.tenant)
            report = run.state.report()
            self._services.decoder.branches.note_ended(report)
            if not run.answered_elsewhere:
                self._rates.charge(request.tenant, report.billed_tokens)
            _note_end(self._recorder, run)
            if self._observer is not None:
                # Not now: those who follow the run come first.
                asyncio.get_running_loop().call_soon(self._observer, run.state, run.log.events)

        journal = Journal(self._store, self._writes, lease, state)
        run = Run(state, self._services, journal, term=term, on_end=on_end)
        self.runs.add(run)
        return run


def _note_end(recorder: Recorder, run: Run) -> None:
    """Record and log a run that has ended."""
    ended, report = run.state.ended, run.state.report()
    assert ended is not None
    record_run(recorder, ended)
    extra: dict[str, object] = {"run": run.id, "outcome": type(ended).__name__}
    if isinstance(ended, RunFailed):
        extra |= {"code": ended.code, "error": ended.message}
    extra |= {"mode": report.mode, "reason": report.reason, "seconds": report.duration_s}
    logger.info("run ended", extra=extra)
