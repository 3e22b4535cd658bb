"""Ending what runs in tasks."""

from __future__ import annotations

import asyncio
from typing import Any

RETRY_S = 0.2


def expire(timer: asyncio.Timeout) -> None:
    """Have a timeout expire now, unless it has."""
    if not timer.expired():
        timer.reschedule(asyncio.get_running_loop().time())


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended; whatever it raises is dropped.

    A cancellation can get lost in a library that catches it while it cleans up (seen in calls of
    redis-py that were cancelled as their answer came), and a loop would go on for ever: so it is
    cancelled again until it ends.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=RETRY_S)
