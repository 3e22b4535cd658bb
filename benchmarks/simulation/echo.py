"""A deployment that does nothing, to measure the cost of messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from ray import serve


@serve.deployment(ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=100)
class Echo:
    """Answers, and counts."""

    async def call(self) -> int:
        """Answer."""
        return 0

    async def count(self, to: int) -> AsyncGenerator[int]:
        """Count, one message a number."""
        for number in range(to):
            yield number
