"""What the HTTP API serves from."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from plato.runs import RunEvents, RunRequest, RunSnapshot, RunState


class RunService(Protocol):
    """Schedulers behind handles, or one in this process."""

    def answer(self, state: RunState) -> AsyncGenerator[RunEvents]:
        """Answer the question that `state` is of, and feed it; released text comes once.

        Closing the iterator cancels the run. The last event is `RunFinished` or `RunFailed`.
        """
        ...

    async def open(self, request: RunRequest) -> None:
        """Start a detached run. Raises a `PlatoError` where there is no room."""
        ...

    def events(self, request: RunRequest) -> AsyncGenerator[RunEvents]:
        """The events of a detached run, from its start to its end; some can come again.

        Closing the iterator leaves the run alone.
        """
        ...

    async def snapshot(self, tenant: str, run_id: str) -> RunSnapshot:
        """A run as it stands. Raises `RunNotFoundError`."""
        ...

    async def cancel(self, tenant: str, run_id: str) -> None:
        """Cancel a run; one that has ended stays as it is. Raises `RunNotFoundError`."""
        ...

    async def ready(self) -> dict[str, object]:
        """What the next question would find. Raises if it would not be answered."""
        ...
