"""Tasks and threads: reliable cancellation, and work that would block the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

logger = logging.getLogger(__name__)

RETRY_S = 0.2
SHORT_CHARS = 4000
"""Length of a text that is tokenised within a few milliseconds."""

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread_if_long(
    chars: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a function whose time depends on `chars`: in a thread if it would block the loop."""
    if chars <= SHORT_CHARS:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


class Interruption:
    """Ends what a task waits for with an error; each wait is a `with` block.

    An `asyncio.timeout` for each of many short waits, as for the tokens of a stream, would cost
    more than what they wait for.
    """

    def __init__(self) -> None:
        self._error: Exception | None = None
        self._waiting: asyncio.Task[object] | None = None
        self._cancelling = 0
        """Requests to cancel the task that there were before the wait."""

    def interrupt(self, error: Exception) -> None:
        """Have the wait raise `error`, or else the next one. Only the first error counts."""
        if self._error is None:
            self._error = error
            if self._waiting is not None:
                self._waiting.cancel()

    def __enter__(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiting = asyncio.current_task()
        assert self._waiting is not None
        self._cancelling = self._waiting.cancelling()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._waiting is not None
        task, self._waiting = self._waiting, None
        # Somebody else can have cancelled the task, too.
        if (
            self._error is not None
            and task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise self._error from error


def expire(timer: asyncio.Timeout) -> None:
    """Have a timeout expire now, unless it has."""
    if not timer.expired():
        timer.reschedule(asyncio.get_running_loop().time())


async def end_task(task: asyncio.Task[T]) -> None:
    """Cancel a task and wait until it has ended; its exception is discarded.

    A cancellation can be lost in a library that catches it during clean-up (seen in redis-py calls
    that were cancelled as their response arrived), and a loop would then never end. Therefore the
    cancellation is repeated until the task ends.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=RETRY_S)


async def repeat(interval_s: float, check: Callable[[], Awaitable[None]]) -> None:
    """Call `check` again and again, until cancelled; what it raises is logged."""
    while True:
        await asyncio.sleep(interval_s)
        try:
            await check()
        except Exception:
            logger.exception("a repeated check failed")
