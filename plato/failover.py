"""Following a run across the deaths of its schedulers.

An answer that somebody waits for is handed to another scheduler by whoever waits
(`follow_anywhere`). A run that goes on by itself is taken over by another scheduler by itself;
who follows it just has to look for it again (`resume_anywhere`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from plato.errors import PlatoError, UnavailableError
from plato.history import History
from plato.runs import BEFORE_ALL, MOVED, EventId, RunEvent, RunFailed, RunFinished, RunRequest

logger = logging.getLogger(__name__)

Events = tuple[RunEvent, ...]
Drive = Callable[[RunRequest, Events | None], AsyncGenerator[Events]]
"""Has some scheduler answer a question, from the start or (with the events received so far, which
may be none) in the place of one that has died."""

FIRST_BACKOFF_S = 0.05
LONGEST_BACKOFF_S = 1.0


def has_moved(event: RunEvent) -> bool:
    """Whether an event says only that another scheduler drives the run now."""
    return isinstance(event, RunFailed) and event.code in MOVED


async def follow_anywhere(
    drive: Drive, request: RunRequest, patience_s: float
) -> AsyncGenerator[Events]:
    """The events of a run, handed to another scheduler whenever the one that has it fails.

    What has been received is what the next one goes on from, so nothing is decoded again that is
    known here. Raises the last error when `patience_s` has passed without an event; closing the
    iterator cancels the run.
    """
    history: History | None = None
    loop = asyncio.get_running_loop()
    heard = loop.time()
    backoff_s = FIRST_BACKOFF_S
    while True:
        known = None if history is None else history.events()
        history = history or History()
        try:
            async with aclosing(drive(request, known)) as batches:
                async for events in batches:
                    if has_moved(events[-1]):
                        events = events[:-1]
                        if not events:
                            break
                    for event in events:
                        history.feed(event)
                    heard, backoff_s = loop.time(), FIRST_BACKOFF_S
                    yield events
                    # The consumer may take its time.
                    heard = loop.time()
                    if isinstance(events[-1], RunFinished | RunFailed):
                        return
            raise UnavailableError("the scheduler stopped before the run's end; ask again")
        except Exception as error:
            if _is_final(error) or loop.time() - heard > patience_s:
                raise
            logger.warning(
                "a run goes to another scheduler (%s: %s)",
                type(error).__name__,
                str(error)[:200],
                extra={"run": request.run},
            )
        backoff_s = await _back_off(backoff_s)


Follow = Callable[[EventId], AsyncGenerator[Events]]
"""Gives the events of a run behind an id, whoever drives it."""


async def resume_anywhere(follow: Follow, run: str, patience_s: float) -> AsyncGenerator[Events]:
    """The events of a run that schedulers take over by themselves, from its start to its end.

    Some events can come again after its scheduler has changed, in short. Raises the last error
    when `patience_s` has passed without an event. Closing the iterator does nothing to the run.
    """
    after = BEFORE_ALL
    loop = asyncio.get_running_loop()
    heard = loop.time()
    backoff_s = FIRST_BACKOFF_S
    while True:
        try:
            async with aclosing(follow(after)) as batches:
                async for events in batches:
                    if has_moved(events[-1]):
                        events = events[:-1]
                    if events:
                        heard, backoff_s = loop.time(), FIRST_BACKOFF_S
                        yield events
                        heard = loop.time()
                        after = max(after, *(event.id for event in events))
                        if isinstance(events[-1], RunFinished | RunFailed):
                            return
            raise UnavailableError("the scheduler stopped before the run's end; ask again")
        except Exception as error:
            if _is_final(error) or loop.time() - heard > patience_s:
                raise
            logger.info("looking for a run again (%r)", error, extra={"run": run})
        backoff_s = await _back_off(backoff_s)


def _is_final(error: Exception) -> bool:
    """Whether another scheduler would say the same."""
    return isinstance(error, PlatoError) and not isinstance(error, UnavailableError)


async def _back_off(backoff_s: float) -> float:
    """Wait a little, with jitter; returns how long to wait the next time."""
    await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
    return min(2 * backoff_s, LONGEST_BACKOFF_S)
