"""One node on its way: from its prompt to its finished text."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field, replace

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
from plato.metrics import NO_METRICS, Recorder
from plato.metrics.table import (
    NODE_RETRIES,
    PLACEMENTS,
    REUSE_ACTUAL,
    REUSE_MISSED,
    REUSE_PREDICTED,
)
from plato.prompting.layout import NodePrompt
from plato.runs import NodeReport, NodeState
from plato.scheduling.config import SchedulerConfig
from plato.scheduling.leases import LeaseKeeper, being_cancelled
from plato.scheduling.placement import Booking, Placement
from plato.scheduling.protocol import DecoderPool
from plato.streams import Attended, SilenceError

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0
RELEASE_DEADLINE_S = 1.0
MOST_ATTEMPTS = 4
"""Attempts of a node in all, in units of those that may bring no new token."""
SILENCE_COUNTS = 0.5
"""Of an attempt: it may be the receiver of a silent decoder's other streams that is gone, and kills
no decoder, unlike a node that has its decoders die."""
SUSPECT = 2
"""Attempts in a row without a token after which a node is suspected to be what kills replicas."""


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
    restored: int = 0
    """Leading tokens of `emitted` that another scheduler's attempts have brought."""

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


class _LeaseLostError(Exception):
    """The engine has dropped a sequence because its lease ran out; nobody's fault but ours."""


class _AttemptFailedError(Exception):
    """An attempt that another may make good; `failure` is what to report if none does."""

    def __init__(self, failure: PlatoError, *, replica: str | None, silent: bool) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.replica = replica
        """The replica to stay away from, if it is to blame."""
        self.silent = silent
        """Whether all that is known is that nothing was heard."""


class NodeDecoder:
    """Decodes nodes, on as many replicas as it takes; shared by all runs of a scheduler.

    A replica that dies, hangs, leaves or is too busy costs an attempt: the node goes on elsewhere
    behind the tokens it has. Attempts in a row that bring no new token are bounded, so a node
    that kills whatever decodes it fails, and does not take the pool with it.
    """

    def __init__(
        self,
        pool: DecoderPool,
        placement: Placement,
        leases: LeaseKeeper,
        config: SchedulerConfig,
        now: Callable[[], float],
        recorder: Recorder = NO_METRICS,
    ) -> None:
        self._recorder = recorder
        self._pool = pool
        self._placement = placement
        self._leases = leases
        self._config = config
        self._now = now

    def full(self) -> bool:
        """Whether more sequences at once would decode no faster; see `Placement.full`."""
        return self._placement.full()

    async def decode(
        self,
        request: GenerateRequest,
        progress: NodeProgress,
        started_s: float,
        show: Callable[[Chunk], Awaitable[None]],
        retrying: Callable[[str], Awaitable[None]],
    ) -> None:
        """Decode a node to its end, calling `show` for every chunk with tokens.

        `started_s` is when the run started, in the scheduler's clock; `retrying` is called with
        the reason before every further attempt. Raises a `PlatoError` that names the node.
        """
        deadline_s = self._config.node_deadline_s
        fruitless, spent = 0, 0.0
        try:
            async with asyncio.timeout(deadline_s) as timer:
                while True:
                    before = len(progress.emitted)
                    attempt = replace(
                        request, attempt=progress.attempt, emitted=tuple(progress.emitted)
                    )
                    try:
                        await self._attempt(attempt, progress, fruitless, started_s, show)
                        return
                    except _AttemptFailedError as error:
                        if len(progress.emitted) > before:
                            fruitless, spent = 0, 0.0
                        fruitless += 1
                        spent += SILENCE_COUNTS if error.silent else 1
                        most = self._config.node_attempts
                        if spent >= most or progress.attempt + 1 >= MOST_ATTEMPTS * most:
                            raise error.failure from error
                        reason = error.failure.message
                        if error.replica is not None:
                            self._placement.avoid(error.replica)
                        why = _why(error.__cause__)
                    self._recorder.add(NODE_RETRIES, reason=why)
                    logger.warning(
                        "a part goes on elsewhere: %s",
                        reason,
                        extra={"run": request.run, "node": request.node, "why": why},
                    )
                    await asyncio.sleep(self._backoff_s(fruitless))
                    progress.attempt += 1
                    await retrying(reason)
        except TimeoutError as error:
            if not timer.expired():
                raise
            raise DeadlineError(
                f"part {progress.node.number} took longer than its deadline of {deadline_s:g} s; "
                "lower max_tokens or raise node_deadline_s"
            ) from error

    def _backoff_s(self, fruitless: int) -> float:
        """How long to wait before the next attempt.

        The first goes at once: a process that has died will not be more alive later. Then the
        time doubles, with jitter, so that nodes that failed together do not come back together.
        """
        if fruitless <= 1:
            return 0.0
        longest: float = self._config.retry_backoff_s * 2.0 ** (fruitless - 2)
        return longest * random.uniform(0.5, 1.0)

    async def _attempt(
        self,
        request: GenerateRequest,
        progress: NodeProgress,
        fruitless: int,
        started_s: float,
        show: Callable[[Chunk], Awaitable[None]],
    ) -> None:
        """One attempt. Raises `_AttemptFailedError` where another may help."""
        what = f"part {progress.node.number}"
        choice = self._placement.choose(
            request.prompt,
            self._pool.replicas(),
            run=request.run,
            output=request.max_tokens - len(request.emitted),
        )
        progress.predicted_tokens = choice.predicted_tokens
        if choice.source:
            request = replace(request, source=choice.source, source_tokens=choice.predicted_tokens)
        progress.replica = choice.replica or ""
        self._recorder.add(PLACEMENTS, kv="import" if choice.source else "compute")

        def failed(
            failure: PlatoError, *, blame: bool = True, silent: bool = False
        ) -> _AttemptFailedError:
            replica = progress.replica if blame else None
            return _AttemptFailedError(failure, replica=replica, silent=silent)

        try:
            with self._placement.booked(
                request.prompt, choice, suspect=fruitless >= SUSPECT
            ) as booking:
                stream = self._pool.generate(request, choice.ranked)
                await self._follow(stream, progress, started_s, booking, show)
        except asyncio.CancelledError as error:
            if being_cancelled():
                raise
            failure = NodeFailedError(f"{what} was cancelled by its decoder")
            raise failed(failure) from error
        except RequestRefusedError as error:
            raise InvalidRequestError(f"{what}: {error}", param=error.param) from error
        except EngineBusyError as error:
            overloaded = OverloadedError(f"{what}: {error}", retry_after_s=RETRY_AFTER_S)
            raise failed(overloaded) from error
        except EngineError as error:
            unavailable = UnavailableError(f"{what}: {error}", retry_after_s=RETRY_AFTER_S)
            raise failed(unavailable) from error
        except SilenceError as error:
            unavailable = UnavailableError(
                f"{what}: decoder {progress.replica} does not answer", retry_after_s=RETRY_AFTER_S
            )
            raise failed(unavailable, silent=True) from error
        except _LeaseLostError as error:
            raise failed(NodeFailedError(str(error)), blame=False) from error
        except (NodeFailedError, UnavailableError) as error:
            raise failed(error) from error
        except PlatoError:
            raise
        except Exception as error:
            logger.info("an attempt failed", exc_info=error, extra={"run": request.run})
            raise failed(
                NodeFailedError(
                    f"{what} failed on decoder {progress.replica} ({type(error).__name__}); send "
                    "the question again"
                )
            ) from error

    def _answered(self, predicted: int, actual: int) -> None:
        """So many prompt tokens were expected to be cached, and so many were."""
        self._placement.answered(predicted, actual)
        self._recorder.add(REUSE_PREDICTED, predicted)
        self._recorder.add(REUSE_ACTUAL, actual)
        self._recorder.add(REUSE_MISSED, max(0, predicted - actual))

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
        number = progress.node.number
        answered = False
        attended = Attended(stream)
        lost = attended.give_up
        with ExitStack() as held:
            if progress.replica:
                # Also before it has answered: it may hang already.
                held.enter_context(self._leases.holding(progress.replica, lost))
            async with aclosing(stream):
                async for chunk in attended:
                    if chunk.offset != len(progress.emitted):
                        raise NodeFailedError(
                            f"tokens {len(progress.emitted)} to {chunk.offset} of part {number} "
                            "are missing"
                        )
                    if chunk.replica != progress.replica:
                        # The pool has taken another than was chosen.
                        held.close()
                        held.enter_context(self._leases.holding(chunk.replica, lost))
                    progress.replica, progress.epoch = chunk.replica, chunk.epoch
                    self._placement.observe(chunk.replica, chunk.epoch, chunk.load)
                    if not chunk.tokens and chunk.finish is None:
                        continue
                    booking.prefilled()
                    if not answered:
                        answered = True
                        self._answered(progress.predicted_tokens, chunk.cached_tokens)
                    if chunk.finish is FinishReason.CANCELLED:
                        raise _LeaseLostError(
                            f"decoder {chunk.replica} dropped part {number}: this scheduler's "
                            "lease had run out"
                        )
                    if chunk.tokens and progress.first_token_s is None:
                        progress.first_token_s = self._now() - started_s
                    progress.cached_tokens = chunk.cached_tokens
                    progress.emitted.extend(chunk.tokens)
                    progress.text += chunk.text
                    await show(chunk)
                    progress.finish = chunk.finish
                    if chunk.finish is not None:
                        # A replica that dies between its last chunk and the end of its stream
                        # has done all there was to do.
                        break
        if progress.finish is None:
            raise NodeFailedError(
                f"the stream of part {number} from decoder {progress.replica} ended before the "
                "part did"
            )
        progress.finished_s = self._now() - started_s


def _why(cause: BaseException | None) -> str:
    """What an attempt failed of, as the metrics have it."""
    match cause:
        case EngineBusyError():
            return "busy"
        case EngineError():
            return "engine"
        case SilenceError():
            return "silent"
        case _LeaseLostError():
            return "lease_lost"
        case _:
            return "died"
