"""Ending background tasks for sure."""

from __future__ import annotations

import asyncio
from typing import Any

RETRY_S = 0.2


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended; whatever it raises is dropped.

    A cancellation can get lost in a library that catches it while it cleans up (seen in calls of
    redis-py that were cancelled as their answer came), and a loop would go on for ever: so it is
    cancelled again until it ends.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=RETRY_S)
