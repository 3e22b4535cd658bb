"""A run that a scheduler drives, and those who follow it."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing

from plato.history import History
from plato.runs import EventId, RunEvent, RunRequest
from plato.scheduling.journal import Journal
from plato.scheduling.run import Run

logger = logging.getLogger(__name__)

CANCEL_DEADLINE_S = 6.0


class LiveRun:
    """Drives a run in a task of its own and keeps its events for whoever follows it.

    Events are bounded by the token budgets of the run's nodes, and go with the object.
    """

    def __init__(
        self,
        run: Run,
        request: RunRequest,
        journal: Journal,
        history: History,
        held: AsyncExitStack,
        ended: Callable[[LiveRun], None],
    ) -> None:
        """`held` is closed and `ended` called when the run is over."""
        self.request = request
        self.journal = journal
        self.history = history
        self._run = run
        self._held = held
        self._when_ended = ended
        self._events: list[RunEvent] = list(history.events())
        """Of another scheduler in short, then all of ours."""
        self._past = len(self._events)
        self._last = history.last_id
        self._news = asyncio.Event()
        self._error: tuple[str, str] = ("cancelled", "the run was cancelled")
        self.over = False
        """Whether the last event is there."""
        self.followers = 0
        self._task = asyncio.create_task(self._drive(), name=f"live-{request.run}")

    async def follow(self, after: EventId) -> AsyncGenerator[tuple[RunEvent, ...]]:
        """Batches of events with ids above `after`, until the run is over."""
        # Another scheduler's events are in short: who has not seen all of them gets all.
        seen = 0
        if after >= self._last:
            seen = bisect_right(self._events, after, lo=self._past, key=_id)
        self.followers += 1
        try:
            while True:
                news = self._news
                if seen < len(self._events):
                    batch = tuple(self._events[seen:])
                    seen += len(batch)
                    yield batch
                elif self.over:
                    return
                else:
                    await news.wait()
        finally:
            self.followers -= 1

    async def cancel(self, code: str = "cancelled", message: str = "the run was cancelled") -> None:
        """End the run, if it has not ended; those who follow it are told."""
        self._error = code, message
        self._task.cancel()
        _, late = await asyncio.wait([self._task], timeout=CANCEL_DEADLINE_S)
        if late:
            logger.error("a run did not end when cancelled", extra={"run": self.request.run})

    async def _drive(self) -> None:
        try:
            async with aclosing(self._run.events()) as batches:
                async for events in batches:
                    self._take(events)
        except asyncio.CancelledError:
            pass
        except Exception:
            logger.exception("a run broke", extra={"run": self.request.run})
            self._error = (
                "internal_error",
                "the run failed unexpectedly; the server's log says more",
            )
        finally:
            if self.history.ended is None:
                self._take((self._run.broken_off(*self._error),))
            self.over = True
            self._wake()
            self.journal.released()
            self._when_ended(self)
            await self._held.aclose()

    def _take(self, events: tuple[RunEvent, ...]) -> None:
        for event in events:
            self.history.feed(event)
        self._events.extend(events)
        self.journal.logged(events)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _id(event: RunEvent) -> EventId:
    return event.id
