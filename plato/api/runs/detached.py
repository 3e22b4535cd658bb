"""Runs that go on without their clients: fetched, cancelled and followed by their ids."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import replace

from starlette.requests import Request

from plato.api.access.limits import Limits
from plato.api.access.tenants import tenant_of
from plato.api.answers import sse
from plato.api.answers.event_stream import StreamFormat, write_events
from plato.api.drain import Drain
from plato.api.errors import ErrorReporter
from plato.api.questions.requests import run_id_of
from plato.api.service import RunService
from plato.runs import RunEvent, RunState
from plato.settings import Settings
from plato.streams import with_heartbeat


class DetachedRuns:
    """Finds the runs that requests name; raises `RunNotFoundError` if there is none."""

    def __init__(
        self,
        service: RunService,
        settings: Settings,
        errors: ErrorReporter,
        limits: Limits,
        drain: Drain,
    ) -> None:
        self._service = service
        self._settings = settings
        self._errors = errors
        self._limits = limits
        self._drain = drain

    async def get(self, request: Request) -> RunState:
        """The current state of a run."""
        tenant, run_id = tenant_of(request), run_id_of(request)
        with self._limits.request(tenant):
            return await self._load(tenant, run_id)

    async def cancel(self, request: Request) -> RunState:
        """Cancel a run, unless it has ended; then its state."""
        tenant, run_id = tenant_of(request), run_id_of(request)
        with self._limits.request(tenant):
            await self._service.cancel(tenant, run_id)
            return await self._load(tenant, run_id)

    @asynccontextmanager
    async def followed(self, request: Request) -> AsyncIterator[tuple[RunState, ExitStack]]:
        """A run, and the slot of an event stream until the end of the block, for `follow`."""
        tenant, run_id = tenant_of(request), run_id_of(request)
        with self._limits.follower(tenant, run_id) as slot:
            yield await self._load(tenant, run_id), slot

    def follow(
        self,
        state: RunState,
        slot: ExitStack,
        path: str,
        stream: StreamFormat,
        end: Callable[[], Iterator[bytes]],
    ) -> sse.EventStream:
        """The events of a run from its start, which feed `state`; `slot` is kept until their end.

        Events can be repeated, but not their text. For `end` see `write_events`; `path` is for the
        log.
        """
        run_id = state.request.run_id
        written = write_events(
            self._events(state),
            stream,
            end=end,
            note=lambda error: self._errors.in_stream(error, path, run_id),
        )
        return sse.EventStream(written, slot.pop_all(), self._settings.write_deadline_s)

    async def _events(self, state: RunState) -> AsyncGenerator[Iterable[RunEvent] | None]:
        events = with_heartbeat(self._service.events(state.request), sse.PING_S)
        async with aclosing(self._drain.watch(events)) as batches:
            async for batch in batches:
                yield None if batch is None else (_feed(state, event) for event in batch)

    async def _load(self, tenant: str, run_id: str) -> RunState:
        snapshot = await self._service.snapshot(tenant, run_id)
        return RunState(snapshot.request, snapshot.events)


def _feed(state: RunState, event: RunEvent) -> RunEvent:
    """The event with only the text that `state` did not have."""
    begins, text = state.text_bytes, state.feed(event)
    return event if text == event.text else replace(event, text=text, text_offset=begins)
