"""One node on its way: from its prompt to its finished text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field

from plato.engine import (
    Chunk,
    EngineBusyError,
    FinishReason,
    GenerateRequest,
    RequestRefusedError,
)
from plato.errors import InvalidRequestError, NodeFailedError, OverloadedError, PlatoError
from plato.graph import Node
from plato.prompting.layout import NodePrompt
from plato.runs import NodeReport, NodeState
from plato.scheduling.leases import LeaseKeeper
from plato.scheduling.placement import Booking, Placement
from plato.scheduling.protocol import DecoderPool


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
        try:
            with self._placement.booked(request.prompt, choice) as booking:
                async with asyncio.timeout(deadline_s):
                    stream = self._pool.generate(request, choice.replica)
                    await self._follow(stream, progress, started_s, booking, show)
        except TimeoutError as error:
            raise NodeFailedError(
                f"{what} took longer than its deadline of {deadline_s:g} s; lower max_tokens or "
                "raise node_deadline_s",
                code="deadline_exceeded",
            ) from error
        except RequestRefusedError as error:
            raise InvalidRequestError(f"{what}: {error}", param="max_tokens") from error
        except EngineBusyError as error:
            raise OverloadedError(f"{what}: {error}", retry_after_s=1.0) from error
        except PlatoError:
            raise
        except Exception as error:
            raise NodeFailedError(
                f"{what} failed on decoder {progress.replica or choice.replica}: {error}"
            ) from error

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
                    if progress.first_token_s is None:
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
