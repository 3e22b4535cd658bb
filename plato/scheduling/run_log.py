"""Runs as the context store has them: for those whose scheduler is another one, or is gone."""

from __future__ import annotations

import logging

from plato.context import ContextStore, NodeRecord
from plato.context.records import UnreadableRecordError, unpack, unpack_events
from plato.engine import FinishReason
from plato.errors import PlatoError, RunNotFoundError, UnavailableError
from plato.history import History
from plato.runs import EventId, NodeOutput, RunEvent, RunRequest, RunSnapshot

logger = logging.getLogger(__name__)


class RunLog:
    """Reads what schedulers' journals have written."""

    def __init__(self, store: ContextStore) -> None:
        self._store = store

    async def require(self, tenant: str, run: str) -> None:
        """Raise `RunNotFoundError` unless it is there, `UnavailableError` if nobody can know."""
        if await self._store.get_run(tenant, run) is None:
            raise self._missing(run)

    async def events(self, tenant: str, run: str, after: EventId) -> tuple[RunEvent, ...]:
        """Events with ids above `after`, as many as one read brings."""
        events: list[RunEvent] = []
        for _, packed in await self._store.read_events(tenant, run, after):
            try:
                events += (event for event in unpack_events(packed) if event.id > after)
            except UnreadableRecordError as error:
                logger.warning("an unreadable event log: %s", error, extra={"run": run})
        return tuple(events)

    async def history(self, tenant: str, run: str) -> History:
        """All that is known of a run."""
        history = History()
        while events := await self.events(tenant, run, history.last_id):
            for event in events:
                history.feed(event)
        return history

    async def snapshot(self, tenant: str, run: str) -> RunSnapshot:
        """A run as it stands. Raises as `require` does, and for what another release wrote."""
        record = await self._store.get_run(tenant, run)
        if record is None:
            raise self._missing(run)
        try:
            request = unpack(RunRequest, record.request)
        except UnreadableRecordError as error:
            raise UnavailableError(f"run {run} was written by another release") from error
        return RunSnapshot(request, (await self.history(tenant, run)).events())

    async def owner(self, tenant: str, run: str) -> str | None:
        """Name of the scheduler that drives a run; `None` if it has ended. Raises as `require`."""
        record = await self._store.get_run(tenant, run)
        if record is None:
            raise self._missing(run)
        return scheduler_name(record.owner) if record.state == "running" else None

    async def unfinished(self, tenant: str, run: str) -> tuple[RunRequest, History] | None:
        """What somebody needs to go on with a run; `None` if there is nothing to go on with."""
        record = await self._store.get_run(tenant, run)
        if record is None or record.state != "running":
            return None
        try:
            request = unpack(RunRequest, record.request)
        except UnreadableRecordError as error:
            logger.warning("a run cannot be taken over: %s", error, extra={"run": run})
            return None
        history = await self.history(tenant, run)
        return (request, history) if history.ended is None else None

    async def complete(self, request: RunRequest, history: History) -> None:
        """Add the nodes to a history that have finished without its having heard of it."""
        for record in (await self._store.get_nodes(request.tenant, request.run)).values():
            known = history.output(record.number)
            if known is None or known.finish is None:
                history.feed(_output(record, history))

    def _missing(self, run: str) -> PlatoError:
        if self._store.available:
            return RunNotFoundError(
                f"there is no run {run}; runs are kept for a while only, and others cannot see them"
            )
        return UnavailableError(
            f"the context store is away, and this scheduler does not drive run {run}; try again",
            retry_after_s=2.0,
        )


def scheduler_name(owner: str) -> str:
    """The scheduler of an owner's name, which also says which life of it."""
    return owner.rpartition(":")[0]


def _output(record: NodeRecord, history: History) -> NodeOutput:
    """All output of a finished node."""
    return NodeOutput(
        run=record.run,
        at_s=history.at_s,
        number=record.number,
        attempt=max(0, history.attempts(record.number) - 1),
        offset=0,
        tokens=record.tokens,
        text=record.text,
        finish=FinishReason(record.finish),
    )
