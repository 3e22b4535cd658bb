"""Following a planner line by line, with a retry if it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack, aclosing
from dataclasses import replace
from functools import partial

from plato.engine import EngineBusyError, EngineError
from plato.errors import ContextLengthError, PlatoError
from plato.metrics.table import PLAN_RETRIES
from plato.planning.protocol import PlanEnded, PlanLine, PlanRequest, PlanStarted, PlanUsage
from plato.runs import Node, PlanReport
from plato.scheduling.failures import SilenceError
from plato.scheduling.leases import being_cancelled
from plato.scheduling.retries import backoff_s
from plato.scheduling.services import Services
from plato.tasks import expire

logger = logging.getLogger(__name__)

AddNode = Callable[[Node, PlanReport, tuple[int, ...]], None]
"""Called with a node, the plan so far, and the plan's output tokens so far."""
PLAN_ATTEMPTS = 2
MARGIN_S = 1.0
"""Added to the deadline, which the planner enforces itself unless it hangs."""


class PlanFollower:
    """Gets the plan of one run."""

    def __init__(self, services: Services, at_s: Callable[[], float]) -> None:
        """`at_s` gives the seconds since the run started."""
        self._services = services
        self._at_s = at_s
        self._replica = ""
        self._refused_for_s = 0.0
        """Time in which the decoder takes nothing, if the last attempt failed of that alone."""
        self._started_s = at_s()
        self.usage = PlanUsage()
        """Cost of the plan so far."""
        self.reason: str | None = None
        """Why the plan ended early, if it did."""
        self.failed = False
        """Whether the last attempt failed."""
        self.split = True
        """Whether the model chose to split the answer."""

    def report(self, nodes: int) -> PlanReport:
        """The plan so far."""
        usage = self.usage
        return PlanReport(
            source="model",
            nodes=nodes,
            tokens=usage.tokens,
            steps=usage.steps,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            one_probability=usage.one_probability,
            started_s=self._started_s,
            finished_s=self._at_s(),
            replica=self._replica,
        )

    async def follow(self, request: PlanRequest, add: AddNode) -> None:
        """Call `add` for every node after those that `request` knows.

        If a planner dies or is silent, another one resumes from the tokens of the last line. While
        decoders take nothing for now, it waits. Raises `ContextLengthError`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + request.deadline_s
        emitted, nodes = request.emitted, list(request.known)

        def take(line: PlanLine) -> None:
            nonlocal emitted
            self.usage = line.usage
            if line.node.number > len(nodes):
                nodes.append(line.node)
                emitted = line.emitted
                add(line.node, self.report(line.node.number), line.emitted)

        attempt, number = request, request.attempt
        attempts_left, refusals = PLAN_ATTEMPTS, 0
        while attempts_left:
            if number > request.attempt:
                self._services.recorder.add(PLAN_RETRIES)
            failure = await self._attempt(
                replace(attempt, attempt=number, emitted=emitted, known=tuple(nodes)), take
            )
            self.failed = failure is not None
            if failure is None:
                return
            self.reason = failure
            logger.warning(
                "plan attempt failed: %s",
                failure,
                extra={"run": request.run_id, "attempt": number, "known": len(nodes)},
            )
            pause_s = 0.0
            if self._refused_for_s:
                refusals += 1
                pause_s = self._free_in_s() + backoff_s(refusals)
            else:
                attempts_left -= 1
            left_s = deadline - loop.time() - pause_s
            if left_s <= 0:
                return
            await asyncio.sleep(pause_s)
            attempt, number = replace(request, deadline_s=left_s), number + 1

    async def _attempt(self, request: PlanRequest, take: Callable[[PlanLine], None]) -> str | None:
        """Make one attempt; returns why it failed, if it did."""
        self._refused_for_s, self._replica = 0.0, ""
        try:
            async with asyncio.timeout(request.deadline_s + MARGIN_S) as deadline:
                async with asyncio.timeout(None) as silence:
                    if await self._receive(request, take, silence):
                        return None
            return "the planner stopped before the plan's end"
        except ContextLengthError:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if being_cancelled():
                raise
            if isinstance(error, TimeoutError) and deadline.expired():
                return f"the plan took longer than {request.deadline_s:g} s"
            if isinstance(error, TimeoutError) and silence.expired():
                error = SilenceError()
            if isinstance(error, EngineBusyError):
                self._refused_for_s = error.retry_after_s or 0.0
            return _describe(error, self._replica)

    def _free_in_s(self) -> float:
        """When some decoder takes something, after the last one has refused."""
        if not self._replica:  # None of them has taken the plan.
            return self._refused_for_s
        return self._services.decoder.leave_alone(self._replica, self._refused_for_s)

    async def _receive(
        self, request: PlanRequest, take: Callable[[PlanLine], None], silence: asyncio.Timeout
    ) -> bool:
        """Receive the events of one attempt; returns whether the plan ended."""
        leases = self._services.leases
        stream = self._services.planner.plan(request)
        with ExitStack() as held:
            async with aclosing(stream):
                # Only waiting for an event can be interrupted: handling one never waits.
                async for event in stream:
                    match event:
                        case PlanStarted():
                            self._replica = event.replica
                            holding = leases.holding(event.replica, partial(expire, silence))
                            held.enter_context(holding)
                        case PlanLine():
                            take(event)
                        case PlanEnded():
                            self.usage, self.split = event.usage, event.split
                            self.reason = event.reason
                            return True
        return False


def _describe(error: BaseException, replica: str) -> str:
    """Why an attempt failed, for the run's report; details of unexpected errors are logged."""
    match error:
        case asyncio.CancelledError():
            return "the planner was cancelled"
        case PlatoError():
            return f"the planner failed: {error.message}"
        case EngineError():
            return f"the planner failed: {error}"
        case SilenceError():
            return f"the planner failed: decoder {replica} does not respond"
        case _:
            logger.info("planner failed", exc_info=error)
            return f"the planner failed ({type(error).__name__})"
