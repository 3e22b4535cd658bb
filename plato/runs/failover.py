"""Following a run across the failure of its scheduler.

An attached run is handed to another scheduler by its caller (`follow_with_failover`). A detached
run is adopted by another scheduler; a follower reconnects to it (`follow_detached`). Single calls
are repeated (`call_with_failover`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from itertools import count
from typing import TypeVar

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
"""Asks a scheduler to drive a run: from the start (`None`), or from the events received so far,
which may be none, after another scheduler failed."""
Follow = Callable[[EventId], AsyncGenerator[RunEvents]]
"""The events of a run with ids above one, whichever scheduler drives it."""

FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 1.0
CALL_RETRY_S = 0.1
MAX_FAULTS = 3
"""Attempts that the code of a scheduler may fail, which another one would probably fail, too."""

T = TypeVar("T")

IsFault = Callable[[Exception], bool]
"""Whether a scheduler raised an error itself, as opposed to having died."""


def _no_fault(_: Exception) -> bool:
    return False


def has_moved(event: RunEvent) -> bool:
    """Whether an event only reports that another scheduler drives the run now."""
    return isinstance(event, RunFailed) and event.code in MOVED


def follow_with_failover(
    drive: Drive, state: RunState, patience_s: float, is_fault: IsFault = _no_fault
) -> AsyncGenerator[RunEvents]:
    """The events of a run, which is handed to another scheduler when its own fails.

    Feeds `state`, from which the next scheduler resumes: received tokens are not decoded again,
    and released text is not repeated. Raises the last error when `patience_s` has passed without
    an event, or after `MAX_FAULTS`. Closing the iterator cancels the run.
    """
    attempts, driven = count(), 0

    async def connect() -> AsyncGenerator[RunEvents]:
        nonlocal driven
        received = state.events() if next(attempts) else None
        request, begun = replace(state.request, takeovers=driven), False
        async with aclosing(drive(request, received)) as batches:
            async for batch in batches:
                driven += not begun
                begun = True
                yield batch

    run_id = state.request.run_id
    return _reconnect(connect, lambda event: _feed(state, event), run_id, patience_s, is_fault)


def follow_detached(
    follow: Follow, run_id: str, patience_s: float, is_fault: IsFault = _no_fault
) -> AsyncGenerator[RunEvents]:
    """The events of a detached run, from its start to its end.

    After another scheduler has adopted it, some events can be repeated, condensed. Raises as
    `follow_with_failover`. Closing the iterator leaves the run alone.
    """
    after = BEFORE_ALL

    def take(event: RunEvent) -> RunEvent:
        nonlocal after
        after = max(after, event.id)
        return event

    return _reconnect(lambda: follow(after), take, run_id, patience_s, is_fault)


async def call_with_failover(
    call: Callable[[], Awaitable[T]],
    run_id: str,
    deadline_s: float,
    is_fault: IsFault = _no_fault,
) -> T:
    """The result of a call about a run, which is repeated while schedulers fail.

    Raises the `PlatoError` of a scheduler that answers, `UnavailableError` when `deadline_s` has
    passed, and the last error after `MAX_FAULTS`.
    """
    faults = 0
    try:
        async with asyncio.timeout(deadline_s) as timer:
            while True:
                try:
                    return await call()
                except PlatoError:
                    raise
                except Exception as error:
                    faults += is_fault(error)
                    if faults == MAX_FAULTS:
                        raise
                    # The process has died, or is shutting down.
                    logger.warning(
                        "retrying call on another scheduler: %r", error, extra={"run": run_id}
                    )
                    await asyncio.sleep(CALL_RETRY_S)
    except TimeoutError as error:
        if not timer.expired():
            raise
        raise UnavailableError(
            "no scheduler responds; try again in a moment", retry_after_s=2.0
        ) from error


async def _reconnect(
    connect: Callable[[], AsyncGenerator[RunEvents]],
    take: Callable[[RunEvent], RunEvent],
    run_id: str,
    patience_s: float,
    is_fault: IsFault,
) -> AsyncGenerator[RunEvents]:
    """The events of `connect`, mapped by `take`; reconnects if they end before the run does.

    Backs off in between, with jitter. Raises errors that another scheduler would repeat, and the
    last one when `patience_s` has passed without an event, or after `MAX_FAULTS`.
    """
    loop = asyncio.get_running_loop()
    received_at, backoff_s, faults = loop.time(), FIRST_BACKOFF_S, 0
    while True:
        try:
            async with aclosing(connect()) as batches:
                async for batch in batches:
                    events = tuple(take(event) for event in _without_move(batch))
                    if not events:
                        break
                    yield events
                    # The consumer's own time does not count.
                    received_at, backoff_s = loop.time(), FIRST_BACKOFF_S
                    if isinstance(events[-1], RunFinished | RunFailed):
                        return
            raise UnavailableError("the scheduler stopped before the end of the run; ask again")
        except Exception as error:
            final = isinstance(error, PlatoError) and not isinstance(error, UnavailableError)
            faults += is_fault(error)
            if final or faults == MAX_FAULTS or loop.time() - received_at > patience_s:
                raise
            logger.warning(
                "retrying run on another scheduler: %s: %s",
                type(error).__name__,
                str(error)[:200],
                extra={"run": run_id},
            )
        await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
        backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)


def _without_move(events: RunEvents) -> RunEvents:
    return events[:-1] if has_moved(events[-1]) else events


def _feed(state: RunState, event: RunEvent) -> RunEvent:
    """The event with only the released text that `state` did not have."""
    begins = state.text_bytes
    text = state.feed(event)
    if state.text_missing:
        raise NodeFailedError(
            f"text after byte {begins} of the answer is missing; send the question again"
        )
    return event if text == event.text else replace(event, text=text, text_offset=begins)
