"""The runs of a server, which go on without their client."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from plato.api.runs.events import read_event
from plato.api.runs.list import RunList, RunStatus
from plato.api.runs.object import RunObject
from plato.client.answer import Question, request_body
from plato.client.connection import Connection
from plato.client.errors import read_json
from plato.errors import OverloadedError, UnavailableError
from plato.runs import EventId, RunEvent, RunState

PATIENCE_S = 60.0
"""How long a server may be away."""
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0
"""Before another attempt to connect."""
PATH = "/v1/runs"
ENDS = ("run_finished", "run_failed")
"""Types of the last event of a run."""


@dataclass(frozen=True, slots=True)
class RunUpdate:
    """What a run has come to."""

    text: str = ""
    """Text that continues the answer."""
    event: RunEvent | None = None
    """An event of the run other than its end."""
    run: RunObject | None = None
    """The run that has ended, well or not; only in the last update."""


class AsyncRuns:
    """The runs of a server. Every method raises a `PlatoError`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def start(self, question: Question, **options: Any) -> RunObject:
        """Have a question answered without waiting; for `options` see `Asker.stream`."""
        return await self._run("POST", PATH, body=request_body(question, options))

    async def list(
        self, *, limit: int = 20, before: str | None = None, status: RunStatus | None = None
    ) -> RunList:
        """Runs of the API key, newest first; `next_before` of a list is the next one's `before`."""
        params = {"limit": str(limit), "before": before, "status": status}
        with self._connection.understood():
            listed = await self._connection.call(
                "GET", PATH, params={name: value for name, value in params.items() if value}
            )
            return RunList.model_validate(listed)

    async def get(self, run_id: str) -> RunObject:
        """The current state of a run, also by the id of an answer."""
        return await self._run("GET", _path(run_id))

    async def cancel(self, run_id: str) -> RunObject:
        """Cancel a run, unless it has ended; then its state."""
        return await self._run("DELETE", _path(run_id))

    async def follow(
        self, run_id: str, *, patience_s: float = PATIENCE_S
    ) -> AsyncGenerator[RunUpdate]:
        """A run from its start to its end, which has the `run` even if that has failed.

        Where its events break off, it connects again behind the last one, unless the server is away
        or busy for `patience_s`. Text comes once.
        """
        known = RunState.of_events()
        clock = asyncio.get_running_loop().time
        wait_s, give_up = FIRST_WAIT_S, clock()
        while True:
            retry_after_s = 0.0
            try:
                async with aclosing(self._follow_once(run_id, known)) as updates:
                    async for update in updates:
                        wait_s, give_up = FIRST_WAIT_S, clock() + patience_s
                        yield update
                        if update.run is not None:
                            return
            except (UnavailableError, OverloadedError) as error:
                retry_after_s = error.retry_after_s or 0.0
                if clock() >= give_up:
                    raise
            if clock() >= give_up:
                raise UnavailableError(f"the events of run {run_id} break off; follow it again")
            await asyncio.sleep(max(retry_after_s, wait_s * random.uniform(0.5, 1)))
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def _follow_once(self, run_id: str, known: RunState) -> AsyncGenerator[RunUpdate]:
        """The updates of one connection, which begins behind what is `known`, and adds to it."""
        headers = {"Last-Event-ID": str(known.last_id)}
        events = self._connection.events("GET", f"{_path(run_id)}/events", headers=headers)
        with self._connection.understood():
            async with aclosing(events):
                async for data in events:
                    described = read_json(data)
                    text = known.release(described["text"], described["text_offset"])
                    known.last_id = EventId.parse(described["id"])
                    if described["type"] in ENDS:
                        yield RunUpdate(text, run=RunObject.model_validate(described["run"]))
                    else:
                        yield RunUpdate(text, read_event(described))

    async def _run(self, method: str, path: str, body: dict[str, Any] | None = None) -> RunObject:
        with self._connection.understood():
            return RunObject.model_validate(await self._connection.call(method, path, body=body))


def _path(run_id: str) -> str:
    return f"{PATH}/{quote(run_id, safe='')}"
