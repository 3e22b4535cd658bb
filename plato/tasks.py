"""Reliable cancellation of background tasks."""

from __future__ import annotations

import asyncio
from typing import Any

RETRY_S = 0.2


def expire(timer: asyncio.Timeout) -> None:
    """Have a timeout expire now, unless it has."""
    if not timer.expired():
        timer.reschedule(asyncio.get_running_loop().time())


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended; its exception is discarded.

    A cancellation can be lost in a library that catches it during clean-up (seen in redis-py calls
    that were cancelled as their response arrived), and a loop would then never end. Therefore the
    cancellation is repeated until the task ends.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=RETRY_S)
