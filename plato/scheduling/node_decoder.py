"""Decoding a node, on as many replicas as it takes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace

from plato.engine import Chunk, DecoderPool, FinishReason, GenerateRequest, Segment
from plato.errors import DeadlineError, NodeFailedError
from plato.metrics import NO_METRICS, Recorder
from plato.metrics.table import (
    NODE_RETRIES,
    PLACEMENTS,
    REUSE_ACTUAL,
    REUSE_MISSED,
    REUSE_PREDICTED,
)
from plato.runs import NodeStatus
from plato.scheduling.failures import (
    AttemptFailure,
    LeaseLostError,
    SilenceError,
    classify_failure,
)
from plato.scheduling.leases import LeaseKeeper, being_cancelled
from plato.scheduling.placement import Booking, Placement
from plato.settings import Settings
from plato.tasks import expire

logger = logging.getLogger(__name__)

RELEASE_DEADLINE_S = 1.0
RETRY_BACKOFF_S = 0.1
"""Before the second attempt in a row without a new token; doubles with each, with jitter."""
MAX_ATTEMPTS = 4
"""Attempts of a node in all, in units of `Settings.node_attempts`."""
SILENT_COST = 0.5
"""Of an attempt: it may be the receiver of a silent decoder's other streams that is gone, and kills
no decoder, unlike a node that has its decoders die."""
SUSPECT_AFTER = 2
"""Attempts in a row without a token after which a node may be what kills replicas."""


@dataclass(slots=True)
class NodeDecoding:
    """A node that is being decoded.

    Its output so far, from which an attempt resumes, is in `status`, which `on_output` feeds.
    """

    request: GenerateRequest
    status: NodeStatus
    on_output: Callable[[Chunk], None]
    """Called for every chunk with tokens or a finish reason."""
    on_retry: Callable[[str], None]
    """Called with the reason before every further attempt."""
    attempt: int = 0
    predicted_tokens: int = 0
    """Cache hit that placement predicted."""
    replica: str = ""
    epoch: str = ""

    @property
    def name(self) -> str:
        """What users call the node."""
        return f"part {self.request.node}"


class NodeDecoder:
    """Shared by all runs of a scheduler.

    A replica that dies, hangs, leaves or is too busy costs an attempt: the node resumes on another
    decoder from its last token. Attempts in a row without a new token are bounded, so a node that
    kills every decoder it meets fails, and spares the rest of the pool.
    """

    def __init__(
        self,
        pool: DecoderPool,
        placement: Placement,
        leases: LeaseKeeper,
        settings: Settings,
        recorder: Recorder = NO_METRICS,
    ) -> None:
        self._pool = pool
        self._placement = placement
        self._leases = leases
        self._settings = settings
        self._recorder = recorder

    def full(self) -> bool:
        """Whether more sequences at once would decode no faster; see `ReplicaTable.full`."""
        return self._placement.replicas.full()

    async def decode(self, decoding: NodeDecoding) -> None:
        """Decode a node to its end. Raises a `PlatoError` that names the node."""
        deadline_s = self._settings.node_deadline_s
        try:
            async with asyncio.timeout(deadline_s) as timer:
                await self._retry(decoding)
        except TimeoutError as error:
            if not timer.expired():
                raise
            raise DeadlineError(
                f"{decoding.name} took longer than its deadline of {deadline_s:g} s; lower "
                "max_tokens or raise node_deadline_s"
            ) from error

    async def _retry(self, decoding: NodeDecoding) -> None:
        """Attempt until one succeeds, or too many have brought no new token."""
        fruitless, spent = 0, 0.0
        limit = self._settings.node_attempts
        while True:
            known = len(decoding.status.tokens)
            try:
                await self._attempt(decoding, suspect=fruitless >= SUSPECT_AFTER)
            except (Exception, asyncio.CancelledError) as error:
                if being_cancelled():
                    raise
                failure = classify_failure(error, decoding.name, decoding.replica)
                if not failure.retryable:
                    raise failure.error from error
                if len(decoding.status.tokens) > known:
                    fruitless, spent = 0, 0.0
                fruitless += 1
                spent += SILENT_COST if failure.silent else 1
                if spent >= limit or decoding.attempt + 1 >= MAX_ATTEMPTS * limit:
                    raise failure.error from error
            else:
                return
            self._note(failure, decoding)
            await asyncio.sleep(_backoff_s(fruitless))
            decoding.attempt += 1
            decoding.on_retry(failure.error.message)

    def _note(self, failure: AttemptFailure, decoding: NodeDecoding) -> None:
        if failure.blames_replica and decoding.replica:
            self._placement.replicas.avoid(decoding.replica)
        self._recorder.add(NODE_RETRIES, reason=failure.reason)
        logger.warning(
            "retrying node on another decoder: %s",
            failure.error.message,
            extra={
                "run": decoding.request.run_id,
                "node": decoding.request.node,
                "reason": failure.reason,
            },
        )

    async def _attempt(self, decoding: NodeDecoding, *, suspect: bool) -> None:
        emitted = tuple(decoding.status.tokens)
        request = replace(decoding.request, attempt=decoding.attempt, emitted=emitted)
        choice = self._placement.choose(
            request.prompt,
            self._pool.replicas(),
            run_id=request.run_id,
            output=request.max_tokens - len(emitted),
        )
        decoding.predicted_tokens = choice.predicted_tokens
        decoding.replica = choice.replica or ""
        if choice.source:
            request = replace(request, source=choice.source, source_tokens=choice.predicted_tokens)
        self._recorder.add(PLACEMENTS, kv="import" if choice.source else "compute")
        with self._placement.booked(request.prompt, choice, suspect=suspect) as booking:
            try:
                async with asyncio.timeout(None) as silence:
                    await self._receive(decoding, request, choice.ranked, booking, silence)
            except TimeoutError as error:
                if silence.expired():
                    raise SilenceError from error
                raise
        if decoding.status.finish is None:
            raise NodeFailedError(
                f"the stream of {decoding.name} from decoder {decoding.replica} ended before the "
                "part did"
            )

    async def _receive(
        self,
        decoding: NodeDecoding,
        request: GenerateRequest,
        ranked: tuple[str, ...],
        booking: Booking,
        silence: asyncio.Timeout,
    ) -> None:
        """Take the chunks of one attempt; `silence` is expired when the replica counts as lost."""

        def lost() -> None:
            expire(silence)

        stream, answered = self._pool.generate(request, ranked), False
        with ExitStack() as held:
            if decoding.replica:
                # Also before it has answered: it may hang already.
                held.enter_context(self._leases.holding(decoding.replica, lost))
            async with aclosing(stream):
                # Only waiting for a chunk can be interrupted: taking one never waits.
                async for chunk in stream:
                    if chunk.offset != len(decoding.status.tokens):
                        raise NodeFailedError(
                            f"tokens {len(decoding.status.tokens)} to {chunk.offset} of "
                            f"{decoding.name} are missing"
                        )
                    if chunk.replica != decoding.replica:
                        # The pool has taken another than was chosen.
                        held.close()
                        held.enter_context(self._leases.holding(chunk.replica, lost))
                    decoding.replica, decoding.epoch = chunk.replica, chunk.epoch
                    self._placement.replicas.observe(chunk.replica, chunk.epoch, chunk.load)
                    if not chunk.tokens and chunk.finish is None:
                        continue
                    booking.prefilled()
                    if not answered:
                        answered = True
                        self._record_reuse(decoding.predicted_tokens, chunk.cached_tokens)
                    if chunk.finish is FinishReason.CANCELLED:
                        raise LeaseLostError
                    decoding.on_output(chunk)
                    if chunk.finish is not None:
                        # A replica that dies between its last chunk and the end of its stream
                        # has done all there was to do.
                        return

    def _record_reuse(self, predicted: int, actual: int) -> None:
        """Record predicted and actual cache hits."""
        self._recorder.add(REUSE_PREDICTED, predicted)
        self._recorder.add(REUSE_ACTUAL, actual)
        self._recorder.add(REUSE_MISSED, max(0, predicted - actual))

    def finished(self, decoding: NodeDecoding) -> None:
        """Let placement know that the replica holds the node's prompt and output."""
        prompt = decoding.request.prompt.extended(Segment(tuple(decoding.status.tokens)))
        # The last token was sampled and has no KV.
        self._placement.replicas.learn(prompt, decoding.replica, missing=1)

    async def release(self, run_id: str, replicas: Iterable[str]) -> None:
        """Tell replicas that a run has ended and needs nothing that it pinned there.

        Never raises: pins expire where nobody releases them.
        """
        try:
            async with asyncio.timeout(RELEASE_DEADLINE_S):
                calls = (self._pool.release(run_id, replica) for replica in replicas)
                results = await asyncio.gather(*calls, return_exceptions=True)
        except TimeoutError as error:
            results = [error]
        for result in results:
            if result is not None:
                logger.info(
                    "pins not released, they will expire: %r", result, extra={"run": run_id}
                )


def _backoff_s(fruitless: int) -> float:
    """How long to wait before the next attempt.

    The first goes at once: a process that has died will not be more alive later. Then the time
    doubles, with jitter, so that nodes that failed together do not come back together.
    """
    if fruitless <= 1:
        return 0.0
    longest: float = RETRY_BACKOFF_S * 2.0 ** (fruitless - 2)
    return longest * random.uniform(0.5, 1.0)
