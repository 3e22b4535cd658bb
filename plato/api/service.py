"""The service behind the HTTP API."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from plato.engine import ReplicaStatus, SamplingParams
from plato.runs import RunEvents, RunPage, RunRequest, RunSnapshot, RunState


class RunService(Protocol):
    """Drives runs: schedulers behind handles, or one in this process."""

    context_length: int
    """Longest sequence of the model, in tokens."""
    fingerprint: str
    """Of the model; see `plato.engine.fingerprint`."""
    sampling: SamplingParams
    """Of requests that set none."""
    thinks: bool
    """Whether the model thinks before it answers, which answers of runs leave out."""

    def answer(self, state: RunState) -> AsyncGenerator[RunEvents]:
        """Answer the question of `state`, and feed it; released text is not repeated.

        Closing the iterator cancels the run. The last event is `RunFinished` or `RunFailed`.
        """
        ...

    async def open(self, request: RunRequest) -> None:
        """Start a detached run. Raises a `PlatoError` if it is not admitted."""
        ...

    def events(self, request: RunRequest) -> AsyncGenerator[RunEvents]:
        """The events of a detached run, from its start to its end; some can be repeated.

        Closing the iterator leaves the run alone.
        """
        ...

    async def snapshot(self, tenant: str, run_id: str) -> RunSnapshot:
        """The current state of a run. Raises `RunNotFoundError`."""
        ...

    async def overviews(
        self, tenant: str, before: str | None, limit: int, status: str | None
    ) -> RunPage:
        """The newest runs of a tenant: at most `limit`, fewer also where the list continues.

        With `before`, those older than that run; with `status`, only those that have it. Raises
        `UnavailableError` if the context store is unreachable.
        """
        ...

    async def cancel(self, tenant: str, run_id: str) -> None:
        """Cancel a run, unless it has ended. Raises `RunNotFoundError`."""
        ...

    async def ready(self) -> dict[str, object]:
        """The state of the service. Raises if a question would not be answered now."""
        ...

    async def decoders(self) -> tuple[ReplicaStatus, ...]:
        """The decoders, and whether they decode. Raises `UnavailableError` if nobody knows."""
        ...
