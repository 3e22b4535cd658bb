"""Branch admission: how many nodes of a run decode side by side.

Nodes decoded side by side (*branches*) make their own answer faster and every step of the batch
longer, for all others in it. So branches beyond a run's first are admitted by what the wider step
costs the others (the branch externality of TAPER, arXiv 2605.06914).
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from plato.engine import DecoderPool, GenerateRequest
from plato.runs import Mode, RunReport
from plato.scheduling.placement import Placement
from plato.scheduling.placement.neighbours import Neighbours

LEAST_BRANCHES = 2
"""Fewer parts side by side would not make up for the time of the plan."""
SMOOTHING = 0.1
"""Weight of the last planned answer in their mean cost."""
LOAD_S = 20.0
"""Time constant over which the load is smoothed: what arrives in bursts waits for a while."""
KEPT_UP = 0.95
"""Share of their time that decoders may be busy if all answers are planned."""
MANY = 64
"""Places of a batch, where they are not known."""
FIRST_LINE_STEPS = 25
"""Steps until a planned answer shows its first text: those of the plan's first line."""
RECHECK_S = 0.02
"""Branches that wait are considered at most this often while nothing ends."""
CONSIDERED = 16
"""Branches that are considered at a time: placement is asked for each."""


@dataclass(frozen=True, slots=True)
class PlanCost:
    """What planned answers cost beyond their text, for each of its tokens."""

    steps: float = 0.3
    """Of plans."""
    prompt_tokens: float = 1.0
    """That plans and parts compute."""

    def updated(self, report: RunReport) -> PlanCost:
        """With one more answer in the mean, if it followed a plan of the model's."""
        tokens = report.output_tokens
        if report.mode is Mode.SEQUENTIAL or report.plan.source != "model" or not tokens:
            return self
        computed = report.prompt_tokens - report.cached_tokens
        return PlanCost(
            self.steps + SMOOTHING * (report.plan.steps / tokens - self.steps),
            self.prompt_tokens + SMOOTHING * (computed / tokens - self.prompt_tokens),
        )


class AnsweredLoad:
    """Tokens a second of the answers that ended, smoothed exponentially over `LOAD_S`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock()
        self._per_s = 0.0

    def note(self, tokens: int) -> None:
        """An answer of so many tokens has ended."""
        self._per_s = self.per_s + tokens / LOAD_S
        self._at = self._clock()

    @property
    def per_s(self) -> float:
        """The load now."""
        return self._per_s * math.exp((self._at - self._clock()) / LOAD_S)


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
        useful = times.useful_width
        if self.token_s is not None or batch.single:
            useful = times.widest(times.bearable_s(batch.others + 1, self.slowdown, self.token_s))
        return min(limit, useful)

    def admits(self, batch: Neighbours) -> bool:
        """Whether one more branch may join a batch."""
        return batch.width + 1 <= self.widest(batch)

    def plans(self, batch: Neighbours, cost: PlanCost, load: float = 0.0) -> bool:
        """Whether an answer should be planned that would join a batch.

        If some of its parts would decode side by side, and the decoder would keep up if all answers
        were planned. It has to answer `load` tokens a second, or in a burst what it computes now.
        """
        if self.slowdown is None:
            return True
        times = batch.times
        first_s = FIRST_LINE_STEPS * times.seconds(batch.width + 1)
        if self.first_text_s is not None and first_s > self.first_text_s:
            return False
        if not batch.others:
            return True
        if batch.width + LEAST_BRANCHES > self.widest(batch):
            return False
        planned_s = (1 + cost.steps) / times.rate(batch.places or MANY)
        planned_s += cost.prompt_tokens * batch.prefill_s
        return planned_s * max(load, times.rate(batch.others + 1)) <= KEPT_UP


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
        self._first: dict[str, int] = {}
        """The first node of each run, until the run ends."""
        self._waiting: list[_Waiting] = []
        """In order of arrival; bounded by the runs in flight and their nodes."""
        self._checked_at = 0.0
        self._cost = PlanCost()
        self._load = AnsweredLoad()
        self._runs: set[str] = set()
        """Runs that were asked about and have not ended; bounded by the runs in flight."""

    @property
    def waiting(self) -> int:
        """Nodes that could be decoded, and wait for others."""
        return len(self._waiting)

    def note_ended(self, report: RunReport) -> None:
        """A run has ended."""
        self._runs.discard(report.run_id)
        self._first.pop(report.run_id, None)
        self._cost = self._cost.updated(report)
        self._load.note(report.output_tokens)

    def pays(self, run_id: str) -> bool:
        """Whether a planned answer would be worth its cost now."""
        names = [replica.name for replica in self._pool.replicas()]
        self._placement.replicas.update(names)
        batches = self._placement.replicas.neighbours(run_id, counted=False).values()
        # Of runs that have just begun, decoders have not reported anything.
        replicas = max(1, len(names))
        begun = -(-len(self._runs - {run_id}) // replicas)
        self._runs.add(run_id)
        return not batches or any(
            self._policy.plans(batch.with_runs(begun), self._cost, self._load.per_s / replicas)
            for batch in batches
        )

    @asynccontextmanager
    async def admitted(self, request: GenerateRequest) -> AsyncGenerator[GenerateRequest]:
        """Wait until a node is admitted; it is decoded within the `async with` block.

        Yields the request that says whether it is a branch.
        """
        if self._admits(request):
            self._branches[request.run_id] += 1
        else:
            await self._wait(request)
        # Also where no other decodes now: in a sequential answer it would not have a prompt.
        first = self._first.setdefault(request.run_id, request.node)
        branch = self._policy.slowdown is not None and request.node != first
        try:
            yield replace(request, branch=branch)
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
        for waiting in heapq.nsmallest(CONSIDERED, self._waiting, key=self._order):
            # One that is done was cancelled, and its task has yet to say so.
            if not waiting.turn.done() and self._admits(waiting.request):
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
