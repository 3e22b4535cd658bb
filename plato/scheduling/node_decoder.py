"""Decoding a node, with retries on other replicas."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from functools import partial

from plato.engine import (
    Chunk,
    DecoderPool,
    FinishReason,
    GenerateRequest,
    ResumptionRefusedError,
    Segment,
)
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
from plato.scheduling.branches import BranchAdmission, BranchPolicy
from plato.scheduling.failures import AttemptFailure, LeaseLostError, SilenceError, classify_failure
from plato.scheduling.leases import LeaseKeeper, being_cancelled
from plato.scheduling.placement import Booking, Placement
from plato.scheduling.retries import Retries
from plato.settings import Settings
from plato.tasks import expire

logger = logging.getLogger(__name__)

RELEASE_DEADLINE_S = 1.0


@dataclass(slots=True)
class NodeDecoding:
    """A node that is being decoded."""

    request: GenerateRequest
    status: NodeStatus
    """The output so far, from which an attempt resumes; `on_output` must feed it."""
    on_output: Callable[[Chunk], None]
    """Called for every chunk with tokens or a finish reason."""
    on_queue: Callable[[str], None]
    """Called with the reason before every further attempt."""
    on_restart: Callable[[str], bool]
    """Called instead with the reason if the output so far has to be dropped; returns whether it
    was. Not if its text was shown."""
    on_start: Callable[[], None]
    """Called in every attempt when a replica, which is noted here, has taken it."""
    attempt: int = 0
    predicted_tokens: int = 0
    """Cache hit predicted by placement."""
    replica: str = ""
    epoch: str = ""

    @property
    def name(self) -> str:
        """The node's name in messages to users."""
        return f"part {self.request.node}"


class NodeDecoder:
    """Decodes nodes on the pool; shared by all runs of a scheduler.

    When a replica dies, hangs, leaves or is too busy, the node resumes from its last token, on
    another decoder if there is one.
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
        policy = BranchPolicy(
            settings.branch_slowdown, settings.first_text_target_s, settings.token_target_s
        )
        self.branches = BranchAdmission(pool, placement, policy)

    async def decode(self, decoding: NodeDecoding) -> None:
        """Decode a node to its end, once it is admitted. Raises a `PlatoError` that names it."""
        async with self.branches.admitted(decoding.request) as decoding.request:
            await self._decode(decoding)

    async def _decode(self, decoding: NodeDecoding) -> None:
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
        """Retry until an attempt succeeds or the attempts are used up."""
        replicas = self._placement.replicas
        retries = Retries(self._settings.node_attempts, decoding.attempt)
        while True:
            known = len(decoding.status.tokens)
            try:
                await self._attempt(decoding, suspect=retries.suspect)
            except ResumptionRefusedError as error:
                self._restart(decoding, error)
                continue
            except (Exception, asyncio.CancelledError) as error:
                if being_cancelled():
                    raise
                failure = classify_failure(error, decoding.name, decoding.replica)
                if not failure.retryable:
                    raise failure.error from error
                if failure.blames_replica and decoding.replica:
                    replicas.avoid(decoding.replica, failure.avoid_s)
                pause_s = retries.pause_s(
                    failure,
                    progressed=len(decoding.status.tokens) > known,
                    free_in_s=replicas.free_in_s,
                )
                if pause_s is None:
                    raise failure.error from error
            else:
                return
            self._note(failure, decoding)
            await asyncio.sleep(pause_s)
            decoding.attempt += 1
            decoding.on_queue(failure.error.message)

    def _restart(self, decoding: NodeDecoding, refused: ResumptionRefusedError) -> None:
        """Begin again where a decoder cannot resume. Raises `NodeFailedError`."""
        decoding.attempt += 1
        if not decoding.on_restart(str(refused)):
            raise NodeFailedError(
                f"{decoding.name} was interrupted, and cannot begin again because its text was "
                f"shown in part ({refused}); ask again"
            ) from refused

    def _note(self, failure: AttemptFailure, decoding: NodeDecoding) -> None:
        self._recorder.add(NODE_RETRIES, reason=failure.reason)
        logger.warning(
            "retrying node: %s",
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
        with self._placement.booked(choice, suspect=suspect) as booking:
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
        """Receive one attempt's chunks; `silence` is expired when the replica counts as lost."""
        lost = partial(expire, silence)
        stream, started, answered = self._pool.generate(request, ranked), False, False
        steps, stepped_at = 0, 0.0
        with ExitStack() as held:
            if decoding.replica:
                # Also before its first chunk: it may hang already.
                held.enter_context(self._leases.holding(decoding.replica, lost))
            async with aclosing(stream):
                # Only waiting for a chunk can be interrupted: handling one never waits.
                async for chunk in stream:
                    if chunk.offset != len(decoding.status.tokens):
                        raise NodeFailedError(
                            f"tokens {len(decoding.status.tokens)} to {chunk.offset} of "
                            f"{decoding.name} are missing"
                        )
                    if chunk.replica != decoding.replica:
                        # The pool chose another replica than placement.
                        held.close()
                        held.enter_context(self._leases.holding(chunk.replica, lost))
                    decoding.replica, decoding.epoch = chunk.replica, chunk.epoch
                    replicas = self._placement.replicas
                    replicas.observe(chunk.replica, chunk.epoch, chunk.load)
                    if chunk.steps > steps:
                        now = time.monotonic()
                        if steps:
                            taken = (now - stepped_at) / (chunk.steps - steps)
                            replicas.note_step(chunk.replica, taken)
                        steps, stepped_at = chunk.steps, now
                    self.branches.recheck()
                    if not started:
                        started = True
                        decoding.on_start()
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
                        # Do not wait for the end of the stream: the replica may die before it.
                        return

    def _record_reuse(self, predicted: int, actual: int) -> None:
        """Record predicted and actual cache hits."""
        self._recorder.add(REUSE_PREDICTED, predicted)
        self._recorder.add(REUSE_ACTUAL, actual)
        self._recorder.add(REUSE_MISSED, max(0, predicted - actual))

    def leave_alone(self, replica: str, for_s: float) -> float:
        """Place nothing at `replica` for some time; returns when another takes something.

        Both in seconds.
        """
        replicas = self._placement.replicas
        replicas.update([each.name for each in self._pool.replicas()])
        replicas.avoid(replica, for_s)
        return min(for_s, replicas.free_in_s)

    def finished(self, decoding: NodeDecoding) -> None:
        """Tell placement that the replica holds the node's prompt and output."""
        prompt = decoding.request.prompt.extended(Segment(tuple(decoding.status.tokens)))
        # The last token was sampled and has no KV.
        self._placement.replicas.learn(prompt, decoding.replica, missing=1)

    async def release(self, run_id: str, replicas: Iterable[str]) -> None:
        """Release the pins of a run that has ended. Never raises: unreleased pins expire."""
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
