"""One run, from its admission to its last event."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator

from plato.errors import DeadlineError, NodeFailedError, PlatoError, RunCancelledError
from plato.patience import loop_clock
from plato.runs import ANSWERED_ELSEWHERE, BEFORE_ALL, MOVED, RunFailed, RunFinished, RunState
from plato.scheduling.event_log import EventLog
from plato.scheduling.node_tasks import NodeTasks
from plato.scheduling.ownership.journal import Journal
from plato.scheduling.plan_phase import PlanPhase
from plato.scheduling.services import Services
from plato.tasks import expire

logger = logging.getLogger(__name__)

CANCEL_DEADLINE_S = 5.0
ALONE_S = 3.0
"""The longest time that a run without a caller goes on, if this process was late."""
MAX_TAKEOVERS = 8
"""A run whose schedulers fail more often may be what they fail of."""


class Run:
    """Drives one question in one task, which owns every task of its plan and nodes.

    It ends with its answer, by its deadline, or when it is cancelled. Followers may come and go
    (`log.follow`). A run with attached callers is cancelled when the last one detaches.
    """

    def __init__(
        self,
        state: RunState,
        services: Services,
        journal: Journal,
        *,
        term: int,
        on_end: Callable[[Run], None],
    ) -> None:
        """Start to drive the run from `state`.

        `term` is the term of its events' ids; `on_end` is called after the last event.
        """
        self.id = state.request.run_id
        self.tenant = state.request.tenant
        self.journal = journal
        self.log = EventLog(state, journal, services.model.text, term)
        self._services = services
        self._on_end = on_end
        self._clock = loop_clock()
        self._callers: set[object] = set()
        """Tokens of `attach`; few, as callers give up one after the other."""
        self._joined = False
        """Whether a caller has called again."""
        self._cancelled = RunCancelledError("the run was cancelled")
        self._task = asyncio.create_task(self._drive(), name=f"run-{self.id}")

    @property
    def state(self) -> RunState:
        """The run's current state."""
        return self.log.state

    @property
    def answered_elsewhere(self) -> bool:
        """Whether it has ended here only because somebody else answers its question."""
        ended = self.state.ended
        return isinstance(ended, RunFailed) and ended.code in ANSWERED_ELSEWHERE

    def attach(self) -> object:
        """Attach a caller; returns a token for `detach`."""
        token = object()
        self._joined = self._joined or bool(self._callers)
        self._callers.add(token)
        return token

    async def detach(self, token: object) -> None:
        """Cancel the run, unless another caller is attached.

        A caller that took this process for dead has called again, and given up again, perhaps
        several times. After the pause, all these calls and their ends are processed, and the one
        that is not given up may be the last: it has as much time as this process was late.
        """
        self._callers.discard(token)
        try:
            if self._joined and not self._callers and not self.log.ended:
                await asyncio.sleep(min(self._clock.lateness, ALONE_S))
        finally:
            if not self._callers and not self.log.ended:
                await self.cancel()

    async def cancel(self, code: str = "cancelled", message: str = "the run was cancelled") -> None:
        """Cancel the run, if it has not ended; `code` and `message` are in its last event."""
        if self.log.ended:
            return
        self._cancelled = RunCancelledError(message, code=code)
        if code != "cancelled":
            self._cancelled.status = 500
        self._task.cancel()
        _, late = await asyncio.wait([self._task], timeout=CANCEL_DEADLINE_S)
        if late:
            logger.error("run did not end when cancelled", extra={"run": self.id})
        elif not self.log.ended:
            # A task that is cancelled before its first step never runs.
            self._end(self._cancelled)

    async def _drive(self) -> None:
        nodes = NodeTasks(self.log, self.journal, self._services)
        failure: PlatoError | None
        try:
            failure = await self._answer(nodes)
        except asyncio.CancelledError:
            failure = self._cancelled
        except Exception as error:
            failure = _first_failure(error, self.id)
        self._end(failure)
        # After the last event, so that no follower waits for it.
        await self._services.decoder.release(self.id, nodes.pinned_at)

    async def _answer(self, nodes: NodeTasks) -> PlatoError | None:
        """Answer the question; returns an error if the deadline has passed."""
        request = self.state.request
        deadline_s = min(request.deadline_s, self._services.settings.run_deadline_s)
        if request.takeovers or self.state.last_id != BEFORE_ALL:
            # Recorded before. A new run is recorded only once its question is checked.
            self.journal.open()
        if request.takeovers:
            # If the run is what its schedulers fail of, this one must have been counted by then.
            await self.journal.wait_recorded()
        if request.takeovers > MAX_TAKEOVERS:
            return NodeFailedError(
                f"{request.takeovers} schedulers have failed with this answer, so it is given up; "
                "report its id to the operator"
            )
        try:
            async with (
                asyncio.timeout(deadline_s - self._elapsed_s()),
                asyncio.timeout(None) as complete,
                asyncio.TaskGroup() as tasks,
            ):
                # Nodes still being decoded are not needed any more.
                self.log.on_complete = lambda: expire(complete)
                nodes.start(tasks)
                tasks.create_task(PlanPhase(nodes, self.log, self.journal, self._services).run())
        except TimeoutError:
            if not complete.expired():
                return DeadlineError(
                    f"the answer took longer than its deadline of {deadline_s:g} s; ask for fewer "
                    "tokens or raise deadline_s",
                    param="plato.deadline_s",
                )
        finally:
            self.log.on_complete = lambda: None
        return None

    def _elapsed_s(self) -> float:
        """Seconds since the run was admitted, by this scheduler or another."""
        admitted = self.state.request.admitted_unix_s
        if not self.state.at_s or not admitted:
            return self.state.at_s
        return max(self.state.at_s, time.time() - admitted)

    def _end(self, failure: PlatoError | None) -> None:
        # A run that was taken over may already be complete.
        self.log.compose()
        if failure is None and not self.log.composer.done:
            failure = NodeFailedError(
                f"the run ended without all of part {self.log.composer.current}; send the "
                "question again"
            )
        if failure is None or failure.code not in MOVED:
            self.log.cancel_open()
        report = self.log.report(self.journal.degraded, self._services.losses)
        stamp = self.log.stamp
        if failure is None:
            self.log.append(RunFinished(*stamp, report))
        else:
            self.log.append(RunFailed.of(failure, *stamp, report))
        cancelled = isinstance(failure, RunCancelledError)
        self.journal.close("cancelled" if cancelled else "failed" if failure else "done")
        self._on_end(self)


def _first_failure(error: Exception, run_id: str) -> PlatoError:
    """The error to report: the first `PlatoError` among those that ended the run."""
    failures = list(_flat(error))
    for failure in failures:
        if isinstance(failure, PlatoError):
            return failure
    logger.error("run failed unexpectedly", exc_info=error, extra={"run": run_id})
    return PlatoError(
        f"the run failed unexpectedly ({type(failures[0]).__name__}); see the server's log"
    )


def _flat(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _flat(inner)
    else:
        yield error
