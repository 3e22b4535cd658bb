"""Computing what a blocked node's prompt will probably begin with, where it will probably run."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from plato.engine import (
    Chunk,
    DecoderPool,
    EngineError,
    FinishReason,
    GenerateRequest,
    Lease,
    Prompt,
)
from plato.metrics import NO_METRICS, Recorder
from plato.metrics.table import WARMED_REUSED, WARMED_TOKENS, WARMINGS
from plato.scheduling.leases import LeaseKeeper, being_cancelled
from plato.scheduling.placement import Choice, Placement

logger = logging.getLogger(__name__)

WARM_DEADLINE_S = 5.0
"""Past it the decoder has no time for it after all."""
LOWEST_PRIORITY = -1
"""Below everything that somebody waits for."""


class Warmings:
    """What one run has computed in advance, at most one prompt of a node at a time.

    Nothing depends on it: no node waits for its own, and whatever fails is computed later.
    """

    def __init__(
        self,
        run: str,
        pool: DecoderPool,
        placement: Placement,
        leases: LeaseKeeper,
        lease: Lease,
        recorder: Recorder = NO_METRICS,
    ) -> None:
        self._run = run
        self._pool = pool
        self._placement = placement
        self._leases = leases
        self._lease = lease
        self._recorder = recorder
        # Both by node, so bounded by the plan.
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._warmed: dict[int, tuple[Prompt, int]] = {}
        """What was computed, and how many tokens of it were there before."""

    def begin(self, tasks: asyncio.TaskGroup, node: int, prompt: Prompt, output: int) -> None:
        """Compute `prompt` where `node` would go now, if that is worth it and there is time.

        `output` is how many tokens the node may decode.
        """
        choice = self._placement.spare(prompt, self._pool.replicas(), run=self._run, output=output)
        if choice is not None:
            self.stop(node)
            self._tasks[node] = tasks.create_task(self._warm(node, prompt, choice))

    def stop(self, node: int) -> None:
        """The node is ready: it computes what is missing itself, and waits for nothing."""
        task = self._tasks.pop(node, None)
        if task is not None:
            task.cancel()

    def answered(self, node: int, prompt: Prompt, cached: int) -> None:
        """Of the node's prompt so many tokens were cached."""
        warmed, known = self._warmed.pop(node, (None, 0))
        if warmed is not None and warmed.hashes[-1] in prompt.hashes:
            self._recorder.add(WARMED_REUSED, max(0, min(cached, len(warmed)) - known))

    async def _warm(self, node: int, prompt: Prompt, choice: Choice) -> None:
        outcome = "failed"
        try:
            async with asyncio.timeout(WARM_DEADLINE_S):
                await self._prefill(node, prompt, choice)
            outcome = "done"
        except (Exception, asyncio.CancelledError) as error:
            if being_cancelled():
                outcome = "cancelled"
                raise
            logger.debug(
                "a prefix was not computed in advance: %r",
                error,
                extra={"run": self._run, "node": node},
            )
        finally:
            self._recorder.add(WARMINGS, outcome=outcome)

    async def _prefill(self, node: int, prompt: Prompt, choice: Choice) -> None:
        assert choice.replica is not None
        request = GenerateRequest(
            run=self._run,
            node=node,
            prompt=prompt,
            max_tokens=1,
            priority=LOWEST_PRIORITY,
            lease=self._lease,
            source=choice.source,
            source_tokens=choice.predicted_tokens if choice.source else 0,
        )
        with self._placement.warming(prompt, choice), self._leases.holding(choice.replica):
            async with aclosing(self._pool.generate(request, choice.ranked[:1])) as chunks:
                async for chunk in chunks:
                    if chunk.replica != choice.replica or chunk.finish is FinishReason.CANCELLED:
                        break
                    if chunk.finish is not None:
                        self._computed(node, prompt, chunk)
                        return
        raise EngineError(f"decoder {choice.replica} has not computed it")

    def _computed(self, node: int, prompt: Prompt, chunk: Chunk) -> None:
        self._placement.observe(chunk.replica, chunk.epoch, chunk.load)
        self._placement.learn(prompt, chunk.replica)
        self._recorder.add(WARMED_TOKENS, len(prompt) - chunk.cached_tokens)
        _, known = self._warmed.get(node, (prompt, chunk.cached_tokens))
        self._warmed[node] = prompt, known
