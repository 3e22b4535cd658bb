"""One node on its way: from its prompt to its finished text."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field

from plato.engine import (
    Chunk,
    EngineBusyError,
    EngineError,
    FinishReason,
    GenerateRequest,
    RequestRefusedError,
)
from plato.errors import (
    DeadlineError,
    InvalidRequestError,
    NodeFailedError,
    OverloadedError,
    PlatoError,
    UnavailableError,
)
from plato.graph import Node
from plato.prompting.layout import NodePrompt
from plato.runs import NodeReport, NodeState
from plato.scheduling.leases import LeaseKeeper
from plato.scheduling.placement import Booking, Placement
from plato.scheduling.protocol import DecoderPool

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0
RELEASE_DEADLINE_S = 1.0


def being_cancelled() -> bool:
    """Whether somebody has cancelled the current task.

    If not, a `CancelledError` in it comes from elsewhere (a replica that shuts down), and a task
    group would take the task that ends with it for one that ended well.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@dataclass(slots=True)
class NodeProgress:
    """What is known of a node while it is decoded; `emitted` is what a next attempt continues."""

    node: Node
    prompt: NodePrompt
    started_s: float
    planned_s: float
    attempt: int = 0
    emitted: list[int] = field(default_factory=list)
    text: str = ""
    first_token_s: float | None = None
    finished_s: float | None = None
    finish: FinishReason | None = None
    predicted_tokens: int = 0
    cached_tokens: int = 0
    replica: str = ""
    epoch: str = ""

    def report(self, state: NodeState, prompt_text: str | None = None) -> NodeReport:
        """The node as the response shows it."""
        return NodeReport(
            number=self.node.number,
            title=self.node.title,
            dependencies=self.node.dependencies,
            state=state,
            planned_s=self.planned_s,
            started_s=self.started_s,
            first_token_s=self.first_token_s,
            finished_s=self.finished_s,
            continues=self.prompt.continues,
            sees=self.prompt.sees,
            shortened=self.prompt.shortened,
            prompt_tokens=len(self.prompt.prompt),
            cached_tokens=self.cached_tokens,
            predicted_cached_tokens=self.predicted_tokens,
            tokens=len(self.emitted),
            attempts=self.attempt + 1,
            finish=self.finish,
            replica=self.replica,
            epoch=self.epoch,
            prompt=prompt_text,
        )


class NodeDecoder:
    """Places a node and follows its stream; shared by all runs of a scheduler."""

    def __init__(
        self,
        pool: DecoderPool,
        placement: Placement,
        leases: LeaseKeeper,
        now: Callable[[], float],
    ) -> None:
        self._pool = pool
        self._placement = placement
        self._leases = leases
        self._now = now

    async def decode(
        self,
        request: GenerateRequest,
        progress: NodeProgress,
        deadline_s: float,
        started_s: float,
        show: Callable[[Chunk], Awaitable[None]],
    ) -> None:
        """Decode one attempt to its end, calling `show` for every chunk with tokens.

        `started_s` is when the run started, in the scheduler's clock. Raises a `PlatoError` that
        names the node.
        """
        what = f"part {progress.node.number}"
        choice = self._placement.choose(request.prompt, self._pool.replicas())
        progress.predicted_tokens = choice.predicted_tokens
        timer = asyncio.timeout(deadline_s)
        try:
            with self._placement.booked(request.prompt, choice) as booking:
                async with timer:
                    stream = self._pool.generate(request, choice.replica)
                    await self._follow(stream, progress, started_s, booking, show)
        except asyncio.CancelledError as error:
            if being_cancelled():
                raise
            raise NodeFailedError(f"{what} was cancelled by its decoder") from error
        except RequestRefusedError as error:
            raise InvalidRequestError(f"{what}: {error}", param="max_tokens") from error
        except EngineBusyError as error:
            raise OverloadedError(f"{what}: {error}", retry_after_s=RETRY_AFTER_S) from error
        except EngineError as error:
            raise UnavailableError(f"{what}: {error}", retry_after_s=RETRY_AFTER_S) from error
        except PlatoError:
            raise
        except Exception as error:
            if timer.expired():
                raise DeadlineError(
                    f"{what} took longer than its deadline of {deadline_s:g} s; lower max_tokens "
                    "or raise node_deadline_s"
                ) from error
            logger.exception("a part failed", extra={"run": request.run, "node": request.node})
            raise NodeFailedError(
                f"{what} failed on decoder {progress.replica or choice.replica} "
                f"({type(error).__name__}); send the question again"
            ) from error

    async def release(self, run: str, replicas: Iterable[str]) -> None:
        """Tell these replicas that `run` has ended and needs nothing that it kept there.

        Never raises: what does not hear of it forgets by itself after a while.
        """
        try:
            async with asyncio.timeout(RELEASE_DEADLINE_S):
                calls = (self._pool.release(run, replica) for replica in replicas)
                results = await asyncio.gather(*calls, return_exceptions=True)
        except TimeoutError as error:
            results = [error]
        for result in results:
            if result is not None:
                logger.info("a run's pins are left to time out: %r", result, extra={"run": run})

    async def _follow(
        self,
        stream: AsyncGenerator[Chunk],
        progress: NodeProgress,
        started_s: float,
        booking: Booking,
        show: Callable[[Chunk], Awaitable[None]],
    ) -> None:
        with ExitStack() as held:
            async with aclosing(stream) as chunks:
                async for chunk in chunks:
                    if chunk.offset != len(progress.emitted):
                        raise NodeFailedError(
                            f"tokens {len(progress.emitted)} to {chunk.offset} of part "
                            f"{progress.node.number} are missing"
                        )
                    if chunk.replica != progress.replica:
                        held.enter_context(self._leases.holding(chunk.replica))
                    progress.replica, progress.epoch = chunk.replica, chunk.epoch
                    self._placement.observe(chunk.replica, chunk.epoch, chunk.load)
                    if not chunk.tokens and chunk.finish is None:
                        continue
                    booking.prefilled()
                    if chunk.tokens and progress.first_token_s is None:
                        progress.first_token_s = self._now() - started_s
                    progress.cached_tokens = chunk.cached_tokens
                    progress.emitted.extend(chunk.tokens)
                    progress.text += chunk.text
                    await show(chunk)
                    if chunk.finish is FinishReason.CANCELLED:
                        raise NodeFailedError(
                            f"decoder {chunk.replica} dropped part {progress.node.number}: this "
                            "scheduler's lease had run out"
                        )
                    progress.finish = chunk.finish
        if progress.finish is None:
            raise NodeFailedError(
                f"the stream of part {progress.node.number} from decoder {progress.replica} ended "
                "before the part did"
            )
        progress.finished_s = self._now() - started_s
