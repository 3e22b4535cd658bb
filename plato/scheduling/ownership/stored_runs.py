"""Runs in the context store, as written by the journals of all schedulers."""

from __future__ import annotations

import logging
from contextlib import suppress

from plato.context import ContextStore, NodeRecord
from plato.context.records import UnreadableRecordError, unpack, unpack_events
from plato.engine import FinishReason
from plato.errors import PlatoError, RunNotFoundError, UnavailableError
from plato.runs import (
    BEFORE_ALL,
    EventId,
    NodeOutput,
    RunEvents,
    RunOverview,
    RunPage,
    RunRequest,
    RunState,
)

logger = logging.getLogger(__name__)

RUNS_PER_READ = 100
"""Runs that one call to the store reads for a list."""
MAX_LISTED = 20 * RUNS_PER_READ
"""Runs that are looked at for one page of a list."""


class StoredRuns:
    """Reads runs from the context store."""

    def __init__(self, store: ContextStore, fingerprint: str) -> None:
        """`fingerprint` is of the model whose runs can be resumed."""
        self._store = store
        self._fingerprint = fingerprint

    async def require(self, tenant: str, run_id: str, after: EventId) -> None:
        """Raise `RunNotFoundError` if no events after `after` are there or will come.

        Raises `UnavailableError` if the store is unreachable.
        """
        record = await self._store.get_run(tenant, run_id)
        if record is None:
            raise self._missing(run_id)
        if record.state != "running" and not await self.events(tenant, run_id, after):
            raise self._evicted(run_id)

    async def events(self, tenant: str, run_id: str, after: EventId) -> RunEvents:
        """Events with ids above `after`, as many as one read returns."""
        events: RunEvents = ()
        for _, packed in await self._store.read_events(tenant, run_id, after):
            try:
                events += tuple(event for event in unpack_events(packed) if event.id > after)
            except UnreadableRecordError as error:
                logger.warning("unreadable event log: %s", error, extra={"run": run_id})
        return events

    async def state(self, tenant: str, run_id: str) -> RunState:
        """A run, replayed from its log. Raises as `require`; `UnavailableError` if unreadable."""
        record = await self._store.get_run(tenant, run_id)
        if record is None:
            raise self._missing(run_id)
        try:
            request = unpack(RunRequest, record.request)
        except UnreadableRecordError as error:
            raise UnavailableError(f"run {run_id} was written by another release") from error
        state = await self._replay(request)
        if state.ended is None and record.state != "running":
            raise self._evicted(run_id)
        return state

    async def overviews(
        self, tenant: str, before: str | None, limit: int, status: str | None
    ) -> RunPage:
        """The newest runs of a tenant; see `RunRegistry.overviews`."""
        found: list[RunOverview] = []
        for _ in range(0, MAX_LISTED, RUNS_PER_READ):
            records = await self._store.list_runs(tenant, before, RUNS_PER_READ)
            if not records:
                if self._store.available:
                    return RunPage(tuple(found), None)
                raise UnavailableError(
                    "the context store is unreachable, so runs cannot be listed; try again",
                    retry_after_s=2.0,
                )
            for record in records:
                if status in (None, record.state):
                    with suppress(UnreadableRecordError):
                        request = unpack(RunRequest, record.request)
                        # One more than asked for says that the list continues.
                        if len(found) == limit:
                            return RunPage(tuple(found), before)
                        found.append(RunOverview(request, record.mode, record.state))
                before = record.run_id
        return RunPage(tuple(found), before)

    async def owner(self, tenant: str, run_id: str) -> str | None:
        """The scheduler that drives a run; `None` if it has ended. Raises as `require`."""
        record = await self._store.get_run(tenant, run_id)
        if record is None:
            raise self._missing(run_id)
        return scheduler_name(record.owner) if record.state == "running" else None

    async def unfinished(self, tenant: str, run_id: str) -> RunState | None:
        """The state to resume a run from.

        `None` if it has ended, is unreadable or was begun with another model.
        """
        record = await self._store.get_run(tenant, run_id)
        if record is None or record.state != "running":
            return None
        try:
            request = unpack(RunRequest, record.request)
        except UnreadableRecordError as error:
            logger.warning("run cannot be adopted: %s", error, extra={"run": run_id})
            return None
        if request.fingerprint != self._fingerprint:
            logger.warning(
                "run cannot be adopted: it was begun with the model %s, and this scheduler has %s",
                request.fingerprint,
                self._fingerprint,
                extra={"run": run_id},
            )
            return None
        state = await self._replay(request)
        return state if state.ended is None else None

    async def add_finished_nodes(self, state: RunState) -> None:
        """Add the output of finished nodes that the state lacks."""
        request = state.request
        records = await self._store.get_nodes(request.tenant, request.run_id)
        for record in records.values():
            if state.node(record.number).finish is None:
                state.feed(_output(record, state))

    async def _replay(self, request: RunRequest) -> RunState:
        state, after = RunState(request), BEFORE_ALL
        while events := await self.events(request.tenant, request.run_id, after):
            for event in events:
                state.feed(event)
            after = max(event.id for event in events)
        return state

    def _evicted(self, run_id: str) -> PlatoError:
        return RunNotFoundError(
            f"run {run_id} has ended, and its events are not stored any more; ask again"
        )

    def _missing(self, run_id: str) -> PlatoError:
        if self._store.available:
            return RunNotFoundError(
                f"run {run_id} not found; runs expire, and are visible only to the API key that "
                "created them"
            )
        return UnavailableError(
            "the context store is unreachable, and this scheduler does not drive run "
            f"{run_id}; try again",
            retry_after_s=2.0,
        )


def scheduler_name(owner: str) -> str:
    """The scheduler's name, without the incarnation that `owner` ends with."""
    return owner.rpartition(":")[0]


def _output(record: NodeRecord, state: RunState) -> NodeOutput:
    """All output of a finished node."""
    return NodeOutput(
        record.run_id,
        state.at_s,
        number=record.number,
        attempt=max(0, state.node(record.number).attempts - 1),
        offset=0,
        tokens=record.tokens,
        node_text=record.text,
        finish=FinishReason(record.finish),
        # Readers of the log would skip an event without an id, which sorts before all others.
        id=state.last_id,
    )
