"""The runs of one scheduler: lookup, lease renewal, handover and adoption."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress

from plato.context import ContextStore
from plato.errors import UnavailableError
from plato.runs import (
    BEFORE_ALL,
    EventId,
    RunEvents,
    RunFailed,
    RunFinished,
    RunPage,
    RunSnapshot,
    RunState,
)
from plato.scheduling.ownership.lease import RunLease
from plato.scheduling.ownership.stored_runs import StoredRuns, scheduler_name
from plato.scheduling.run import Run
from plato.settings import Settings

logger = logging.getLogger(__name__)

KEEPS_PER_TTL = 3
MAX_LINGERING = 256
LINGER_S = 30.0
"""How long an ended run is kept if the context store does not have all of it."""
CHECK_INTERVAL_S = 5.0
"""How often a follower without events checks that some can still come."""
FOLLOW_INTERVAL_S = 0.25
"""How often the event log of a run that another scheduler drives is read."""
MOVED_MESSAGE = "another scheduler resumes this run"

Adopt = Callable[[RunState, int], Awaitable[object]]
"""Resumes a run from its stored state, with the fencing token of its lease."""


class RunRegistry:
    """Runs in flight here, and ended ones until the store has all of them."""

    def __init__(
        self, store: ContextStore, stored: StoredRuns, owner: str, settings: Settings
    ) -> None:
        """`owner` identifies this incarnation of the scheduler."""
        self._store = store
        self._stored = stored
        self._owner = owner
        self._ttl_s = settings.ownership_ttl_s
        self._patience_s = settings.run_deadline_s
        self._runs: dict[str, Run] = {}
        """By id; bounded by admission, plus the runs that were taken over."""
        self._lingering: dict[str, tuple[Run, float]] = {}
        """Ended runs with their expiry; at most `MAX_LINGERING`."""
        self._draining = False

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._runs

    def add(self, run: Run) -> None:
        """Add a run that starts."""
        self._runs[run.id] = run

    def find(self, tenant: str, run_id: str) -> Run | None:
        """A run of this tenant that is in flight here or has just ended."""
        run = self._runs.get(run_id)
        if run is None and run_id in self._lingering:
            run = self._lingering[run_id][0]
        return run if run is not None and run.tenant == tenant else None

    def ended(self, run: Run) -> None:
        """Note the end of a run, and keep it until the store has all of it."""
        if self._runs.get(run.id) is run:
            del self._runs[run.id]
        if run.journal.settled:
            # Another scheduler drives it: a caller that comes back must not find it here.
            return
        while len(self._lingering) >= MAX_LINGERING:
            del self._lingering[next(iter(self._lingering))]
        self._lingering[run.id] = run, _now() + LINGER_S

    async def follow(
        self,
        tenant: str,
        run_id: str,
        after: EventId = BEFORE_ALL,
        heartbeat_s: float | None = None,
    ) -> AsyncGenerator[RunEvents]:
        """Events with ids above `after`, until the run has ended, whichever scheduler drives it.

        From memory if the run is driven here, else from the event log. Yields an empty batch
        whenever `heartbeat_s` has passed without an event. Raises `RunNotFoundError`, and
        `UnavailableError` if the store is unreachable or no event came in time.
        """
        if self.find(tenant, run_id) is None:
            await self._stored.require(tenant, run_id, after)
        checked = _now()
        deadline = checked + self._patience_s
        while (run := self.find(tenant, run_id)) is None:
            events = await self._stored.events(tenant, run_id, after)
            if events:
                yield events
                after = max(event.id for event in events)
                if isinstance(events[-1], RunFinished | RunFailed):
                    return
            elif _now() > checked + CHECK_INTERVAL_S:
                checked = _now()
                with suppress(UnavailableError):
                    await self._stored.require(tenant, run_id, after)
            elif _now() > deadline:
                raise UnavailableError(
                    f"no events for run {run_id}; try again later", retry_after_s=5.0
                )
            else:
                await asyncio.sleep(FOLLOW_INTERVAL_S)
                if heartbeat_s is not None:
                    yield ()
        # Driven or adopted by this scheduler.
        async with aclosing(run.log.follow(after, heartbeat_s)) as batches:
            async for events in batches:
                yield events

    async def snapshot(self, tenant: str, run_id: str) -> RunSnapshot:
        """The current state of a run. Raises as `follow` does."""
        run = self.find(tenant, run_id)
        state = run.state if run is not None else await self._stored.state(tenant, run_id)
        return RunSnapshot(state.request, state.events())

    async def overviews(
        self, tenant: str, before: str | None = None, limit: int = 20, status: str | None = None
    ) -> RunPage:
        """The newest runs of a tenant in the store, with `status` if it is given: at most `limit`.

        With `before`, those that are older than that run. A page can be short of runs although the
        list continues, as only `MAX_LISTED` runs are looked at. Raises `UnavailableError` if the
        store is unreachable.
        """
        return await self._stored.overviews(tenant, before, limit, status)

    async def owner(self, tenant: str, run_id: str) -> str | None:
        """Name of the scheduler that drives a run; `None` if it has ended. Raises as `follow`."""
        if self.find(tenant, run_id) is not None:
            return scheduler_name(self._owner)
        return await self._stored.owner(tenant, run_id)

    async def cancel(self, tenant: str, run_id: str) -> bool:
        """Cancel a run if it is driven here; returns whether it is."""
        run = self.find(tenant, run_id)
        if run is not None:
            await run.cancel()
        return run is not None

    async def maintain(self, adopt: Adopt, recheck: Callable[[], None]) -> None:
        """Renew the leases of runs, adopt orphans and call `recheck` in rounds, until cancelled.

        Failures are logged and retried in the next round.
        """
        while True:
            await asyncio.sleep(self._ttl_s / KEEPS_PER_TTL)
            try:
                recheck()
                await self._keep()
                await self._adopt_orphans(adopt)
            except Exception:
                logger.exception("run maintenance failed; retrying")

    async def hand_over(self) -> None:
        """Let other schedulers adopt the runs without followers here, and adopt no more runs."""
        self._draining = True
        for run in tuple(self._runs.values()):
            if not run.log.followed:
                run.journal.hand_over()
                await run.cancel("handed_over", MOVED_MESSAGE)

    async def close(self) -> None:
        """Cancel all runs."""
        for run in tuple(self._runs.values()):
            await run.cancel()

    async def _keep(self) -> None:
        for run in tuple(self._runs.values()):
            if run.journal.lost:
                logger.warning("run was taken over by another scheduler", extra={"run": run.id})
                await run.cancel("taken_over", MOVED_MESSAGE)
            else:
                run.journal.keep()
        for run_id, (run, until) in tuple(self._lingering.items()):
            if run.journal.settled or _now() > until:
                del self._lingering[run_id]
            else:
                run.journal.keep()

    async def _adopt_orphans(self, adopt: Adopt) -> None:
        if self._draining or not self._store.available:
            return
        for tenant, run_id in await self._store.orphans():
            if run_id in self._runs:
                continue
            lease = RunLease(self._store, tenant, run_id, self._owner, self._ttl_s)
            if not await lease.acquire():
                continue
            state = await self._stored.unfinished(tenant, run_id)
            if state is not None:
                await adopt(state, lease.fence)
            else:
                await lease.release()
                await self._store.forget(tenant, run_id)


def _now() -> float:
    return asyncio.get_running_loop().time()
