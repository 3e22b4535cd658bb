"""Following a planner: its lines as they come, and another attempt where one breaks off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, aclosing
from dataclasses import replace

from plato.engine import EngineError
from plato.errors import ContextLengthError, PlatoError
from plato.graph import Node
from plato.metrics import NO_METRICS, Recorder
from plato.metrics.table import PLAN_RETRIES
from plato.planning.protocol import (
    PlanEnded,
    PlanLine,
    Planner,
    PlanRequest,
    PlanStarted,
    PlanUsage,
)
from plato.runs import PlanReport
from plato.scheduling.leases import LeaseKeeper, being_cancelled
from plato.streams import Attended, SilenceError

logger = logging.getLogger(__name__)

AddNode = Callable[[Node, PlanReport, tuple[int, ...]], Awaitable[None]]
"""Takes a node, the plan so far, and the plan's output tokens so far."""
MARGIN_S = 1.0
"""The planner keeps the deadline itself; this is for one that hangs."""


class PlanFollower:
    """Gets the plan of one run."""

    def __init__(
        self,
        planner: Planner,
        leases: LeaseKeeper,
        *,
        attempts: int,
        at: Callable[[], float],
        recorder: Recorder = NO_METRICS,
    ) -> None:
        """`at` gives the seconds since the run started."""
        self._recorder = recorder
        self._planner = planner
        self._leases = leases
        self._attempts = attempts
        self._at = at
        self._usage = PlanUsage()
        self._replica = ""
        self._started_s = at()
        self.reason: str | None = None
        """Why the plan ended early, if it did."""
        self.failed = False
        """Whether that is because no planner brought it to its end."""
        self.split = True
        """False: the model chose to answer in one piece."""

    @property
    def usage(self) -> PlanUsage:
        """What the plan has taken."""
        return self._usage

    def report(self, nodes: int) -> PlanReport:
        """The plan so far."""
        usage = self._usage
        return PlanReport(
            source="model",
            nodes=nodes,
            tokens=usage.tokens,
            steps=usage.steps,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            one_probability=usage.one_probability,
            started_s=self._started_s,
            finished_s=self._at(),
            replica=self._replica,
        )

    async def follow(self, request: PlanRequest, known: int, add: AddNode) -> None:
        """Call `add` for every node behind the first `known`.

        A planner that dies or falls silent is replaced by another, which goes on from the tokens
        of the last line. Raises `ContextLengthError`: that is the caller's to mend.
        """
        deadline = asyncio.get_running_loop().time() + request.deadline_s
        emitted = request.emitted
        again = request

        async def take(node: Node, report: PlanReport, tokens: tuple[int, ...]) -> None:
            nonlocal known, emitted
            if node.number > known:
                known, emitted = node.number, tokens
                await add(node, report, tokens)

        for attempt in range(request.attempt, request.attempt + self._attempts):
            if attempt > request.attempt:
                self._recorder.add(PLAN_RETRIES)
            failure = await self._attempt(replace(again, attempt=attempt, emitted=emitted), take)
            self.failed = failure is not None
            if failure is None:
                return
            self.reason = failure
            logger.warning(
                "%s", failure, extra={"run": request.run, "attempt": attempt, "known": known}
            )
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                return
            again = replace(request, deadline_s=left_s)

    async def _attempt(self, request: PlanRequest, take: AddNode) -> str | None:
        """One planner's attempt: why it failed, if it did. How a plan ended is no failure."""
        stream = self._planner.plan(request)
        until = asyncio.get_running_loop().time() + request.deadline_s + MARGIN_S
        events = Attended(stream, until=until)
        try:
            with ExitStack() as held:
                async with aclosing(stream):
                    async for event in events:
                        match event:
                            case PlanStarted():
                                self._replica = event.replica
                                held.enter_context(
                                    self._leases.holding(event.replica, events.give_up)
                                )
                            case PlanLine():
                                self._usage = event.usage
                                report = self.report(event.node.number)
                                await take(event.node, report, event.emitted)
                            case PlanEnded():
                                self._usage, self.split = event.usage, event.split
                                self.reason = event.reason
                                return None
            return "the planner stopped before the plan's end"
        except ContextLengthError:
            # A part that does not fit is the caller's to mend, not the planner's failure.
            raise
        except asyncio.CancelledError:
            if being_cancelled():
                raise
            return "the planner was cancelled"
        except PlatoError as error:
            return f"the planner failed: {error.message}"
        except EngineError as error:
            return f"the planner failed: {error}"
        except SilenceError:
            return f"the planner failed: decoder {self._replica} does not answer"
        except Exception as error:
            if isinstance(error, TimeoutError) and asyncio.get_running_loop().time() >= until:
                return f"the plan took longer than {request.deadline_s:g} s"
            logger.info("the planner failed", exc_info=error, extra={"run": request.run})
            return f"the planner failed ({type(error).__name__})"
