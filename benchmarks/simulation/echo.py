"""A deployment that does nothing, to measure the cost of calls and messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from ray import serve

from plato.engine import Chunk


@serve.deployment(ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=1000)
class Echo:
    """Sends what it is given."""

    async def cpu_s(self) -> float:
        """Processor time of this process so far, of all threads."""
        return time.process_time()

    async def repeat(self, chunk: Chunk, count: int) -> AsyncGenerator[Chunk]:
        """Send `chunk` so many times, as fast as it goes."""
        for _ in range(count):
            yield chunk
            # Streams take turns.
            await asyncio.sleep(0)
