"""Following a run across the failure of its scheduler.

The run of a caller that waits for its answer is handed to another scheduler by that caller
(`follow_with_failover`). A detached run is adopted by another scheduler on its own; a follower
only has to find it again (`follow_detached`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from plato.errors import NodeFailedError, PlatoError, UnavailableError
from plato.runs.events import (
    BEFORE_ALL,
    MOVED,
    EventId,
    RunEvent,
    RunEvents,
    RunFailed,
    RunFinished,
)
from plato.runs.request import RunRequest
from plato.runs.state import RunState

logger = logging.getLogger(__name__)

Drive = Callable[[RunRequest, RunEvents | None], AsyncGenerator[RunEvents]]
"""Has a scheduler answer a question, from the start or (with the events received so far, which
may be none) in place of one that failed."""
Follow = Callable[[EventId], AsyncGenerator[RunEvents]]
"""The events of a run with ids above one, whichever scheduler drives it."""

FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 1.0


def has_moved(event: RunEvent) -> bool:
    """Whether an event only says that another scheduler drives the run now."""
    return isinstance(event, RunFailed) and event.code in MOVED


async def follow_with_failover(
    drive: Drive, state: RunState, patience_s: float
) -> AsyncGenerator[RunEvents]:
    """The events of the run that `state` is of, handed to another scheduler when its own fails.

    Feeds `state`, from which the next scheduler resumes: what was received is not decoded again,
    and released text comes once. Raises the last error when `patience_s` has passed without an
    event. Closing the iterator cancels the run.
    """
    retry = _Retry(state.request.run_id, patience_s)
    known: RunEvents | None = None
    while True:
        try:
            async with aclosing(drive(state.request, known)) as batches:
                async for batch in batches:
                    events = _without_move(batch)
                    if not events:
                        break
                    retry.received()
                    yield tuple(_feed(state, event) for event in events)
                    # Time that the consumer takes does not count.
                    retry.received()
                    if state.ended is not None:
                        return
            raise UnavailableError("the scheduler stopped before the end of the run; ask again")
        except Exception as error:
            await retry.after(error)
        known = state.events()


async def follow_detached(
    follow: Follow, run_id: str, patience_s: float
) -> AsyncGenerator[RunEvents]:
    """The events of a detached run, from its start to its end.

    Some events can come again, condensed, after another scheduler has adopted it. Raises the last
    error when `patience_s` has passed without an event. Closing the iterator leaves the run alone.
    """
    retry = _Retry(run_id, patience_s)
    after = BEFORE_ALL
    while True:
        try:
            async with aclosing(follow(after)) as batches:
                async for batch in batches:
                    events = _without_move(batch)
                    if not events:
                        break
                    retry.received()
                    yield events
                    retry.received()
                    after = max(after, *(event.id for event in events))
                    if isinstance(events[-1], RunFinished | RunFailed):
                        return
            raise UnavailableError("the scheduler stopped before the end of the run; ask again")
        except Exception as error:
            await retry.after(error)


class _Retry:
    """Decides whether another scheduler is tried, and waits before it is."""

    def __init__(self, run_id: str, patience_s: float) -> None:
        self._run_id = run_id
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self.received()

    def received(self) -> None:
        """Something came."""
        self._received_at = self._loop.time()
        self._backoff_s = FIRST_BACKOFF_S

    async def after(self, error: Exception) -> None:
        """Back off, with jitter; raises `error` if another attempt is useless or too late."""
        final = isinstance(error, PlatoError) and not isinstance(error, UnavailableError)
        if final or self._loop.time() - self._received_at > self._patience_s:
            raise error
        logger.warning(
            "retrying run on another scheduler: %s: %s",
            type(error).__name__,
            str(error)[:200],
            extra={"run": self._run_id},
        )
        await asyncio.sleep(self._backoff_s * random.uniform(0.5, 1.0))
        self._backoff_s = min(2 * self._backoff_s, MAX_BACKOFF_S)


def _without_move(events: RunEvents) -> RunEvents:
    return events[:-1] if has_moved(events[-1]) else events


def _feed(state: RunState, event: RunEvent) -> RunEvent:
    """The event with only the released text that `state` did not have."""
    begins = state.text_bytes
    text = state.feed(event)
    if state.text_missing:
        raise NodeFailedError(
            f"text behind byte {begins} of the answer is missing; send the question again"
        )
    return event if text == event.text else replace(event, text=text, text_offset=begins)
