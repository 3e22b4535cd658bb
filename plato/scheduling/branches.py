"""Branch admission: how many nodes of a run decode side by side.

Nodes decoded side by side (*branches*) make their own answer faster and every step of the batch
longer, for all others in it. So branches beyond a run's first are admitted by what the wider step
costs the others (the branch externality of TAPER, arXiv 2605.06914).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from plato.engine import DecoderPool, GenerateRequest
from plato.scheduling.placement import Placement
from plato.scheduling.placement.neighbours import Neighbours

PLAN_SHARE = 0.35
"""Work of a planned answer beyond that of a sequential one, as a share of it: the plan's tokens,
and the prompts of plan and parts."""
FIRST_LINE_STEPS = 25
"""Steps until a planned answer shows its first text: those of the plan's first line."""
RECHECK_S = 0.02
"""Branches that wait are considered at most this often while nothing ends."""


@dataclass(frozen=True, slots=True)
class BranchPolicy:
    """How wide branches may make a batch.

    Alone, a run may fill it. Beside others whose targets are set, as long as the step keeps the
    target; beside a run with only one sequence there, which gains nothing from wide steps, as long
    as the step is at most `slowdown` times as long as without branches; and where all have
    branches, as long as throughput rises.
    """

    slowdown: float | None
    """`None`: branches start at once, whatever they cost."""
    first_text_s: float | None = None
    token_s: float | None = None
    """Targets of all answers: see `Settings`."""

    def widest(self, batch: Neighbours) -> float:
        """The number of sequences up to which branches may fill a batch."""
        limit = batch.places or math.inf
        if self.slowdown is None:
            return math.inf
        if not batch.others:
            return limit
        times = batch.times
        if self.token_s is not None:
            useful = times.widest(self.token_s)
        elif batch.single:
            useful = times.widest(self.slowdown * times.seconds(batch.others + 1))
        else:
            useful = times.useful_width
        return min(limit, useful)

    def admits(self, batch: Neighbours) -> bool:
        """Whether one more branch may join a batch."""
        return batch.width + 1 <= self.widest(batch)

    def plans(self, batch: Neighbours, parts: int) -> bool:
        """Whether an answer of so many parts should be planned, if all else stays as it is.

        If at least two parts would decode side by side, and the wider steps make up for the plan.
        """
        if self.slowdown is None:
            return True
        times, width = batch.times, batch.width
        first_s = FIRST_LINE_STEPS * times.seconds(width + 1)
        if self.first_text_s is not None and first_s > self.first_text_s:
            return False
        if not batch.others:
            return True
        branches = min(parts, int(self.widest(batch)) - width)
        if branches < 2:
            return False
        return times.rate(width + branches) >= (1 + PLAN_SHARE) * times.rate(width + 1)


@dataclass(eq=False, slots=True)
class _Waiting:
    request: GenerateRequest
    turn: asyncio.Future[None]


class BranchAdmission:
    """Admits the nodes of all runs of a scheduler; a run always decodes at least one.

    Of the branches that wait, one of the run with the fewest is next, then the one with the longest
    path below it, then the first. Not thread-safe.
    """

    def __init__(self, pool: DecoderPool, placement: Placement, policy: BranchPolicy) -> None:
        self._pool = pool
        self._placement = placement
        self._policy = policy
        self._branches: Counter[str] = Counter()
        """Admitted nodes by run; runs without any are dropped."""
        self._waiting: list[_Waiting] = []
        """In order of arrival; bounded by the runs in flight and their nodes."""
        self._checked_at = 0.0

    @property
    def waiting(self) -> int:
        """Nodes that could be decoded, and wait."""
        return len(self._waiting)

    def pays(self, run_id: str, parts: int) -> bool:
        """Whether a planned answer of `parts` parts would be worth its cost now."""
        self._placement.replicas.update([replica.name for replica in self._pool.replicas()])
        batches = self._placement.replicas.neighbours(run_id, counted=False).values()
        return not batches or any(self._policy.plans(batch, parts) for batch in batches)

    @asynccontextmanager
    async def admitted(self, request: GenerateRequest) -> AsyncGenerator[None]:
        """Wait until a node is admitted; it is decoded within the `async with` block."""
        if self._admits(request):
            self._branches[request.run_id] += 1
        else:
            await self._wait(request)
        try:
            yield
        finally:
            self._leave(request.run_id)

    def recheck(self) -> None:
        """Admit what can be admitted now; call it when a decoder reports its load."""
        if self._waiting and (now := time.monotonic()) >= self._checked_at + RECHECK_S:
            self._checked_at = now
            self._admit()

    async def _wait(self, request: GenerateRequest) -> None:
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            await waiting.turn
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            else:
                self._leave(request.run_id)
            raise

    def _leave(self, run_id: str) -> None:
        self._branches[run_id] -= 1
        if not self._branches[run_id]:
            del self._branches[run_id]
        self._admit()

    def _admit(self) -> None:
        """Admit one branch, and look again when it has been placed."""
        for waiting in sorted(self._waiting, key=self._order):
            if self._admits(waiting.request):
                self._waiting.remove(waiting)
                self._branches[waiting.request.run_id] += 1
                waiting.turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._admit)
                return

    def _order(self, waiting: _Waiting) -> tuple[int, int]:
        return self._branches[waiting.request.run_id], -waiting.request.priority

    def _admits(self, request: GenerateRequest) -> bool:
        """Whether a node may be decoded now, where placement would send it."""
        if not self._branches[request.run_id]:
            return True
        choice = self._placement.choose(
            request.prompt,
            self._pool.replicas(),
            run_id=request.run_id,
            output=request.max_tokens,
        )
        if choice.replica is None:
            return True
        batches = self._placement.replicas.neighbours(request.run_id, counted=True)
        return self._policy.admits(batches[choice.replica])
