"""Why an attempt failed, and whether to retry."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, fields

from plato.breaker import COOLDOWN_S
from plato.engine import (
    ContextExceededError,
    EngineBusyError,
    EngineError,
    EngineUnreadyError,
    RequestRefusedError,
    SamplingParams,
    UpstreamError,
)
from plato.errors import (
    ContextLengthError,
    InvalidRequestError,
    NodeFailedError,
    OverloadedError,
    PlatoError,
    UnavailableError,
)
from plato.scheduling.placement.replicas import AVOID_S

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0
SAMPLING = frozenset(field.name for field in fields(SamplingParams))


class SilenceError(Exception):
    """The decoder was silent for so long that it counts as lost."""


class LeaseLostError(Exception):
    """The decoder dropped the sequence because this scheduler's lease had expired."""


@dataclass(frozen=True, slots=True)
class AttemptFailure:
    """A failed attempt."""

    error: PlatoError
    """What to report if no further attempt succeeds."""
    reason: str = "died"
    """Label of the metric."""
    retryable: bool = True
    cooldown_s: float = 0.0
    """Time in which the same replica refuses every attempt."""
    passes: bool = False
    """Whether that is all that is wrong with it."""

    @property
    def blames_replica(self) -> bool:
        """Whether its replica should be avoided."""
        return self.reason != "lease_lost"

    @property
    def avoid_s(self) -> float:
        """How long to avoid its replica."""
        return self.cooldown_s if self.passes else AVOID_S

    @property
    def silent(self) -> bool:
        """Whether the decoder was silent, as opposed to reporting an error."""
        return self.reason == "silent"


def classify_failure(error: BaseException, what: str, replica: str) -> AttemptFailure:
    """Classify an error of an attempt; `what` names the node or plan to the user."""
    where = f"{what}: decoder {replica}" if replica else what

    def unavailable(message: str) -> UnavailableError:
        return UnavailableError(message, retry_after_s=RETRY_AFTER_S)

    match error:
        case ContextExceededError():
            too_long = ContextLengthError(f"{what}: {error}", param=error.param)
            return AttemptFailure(too_long, retryable=False)
        case RequestRefusedError():
            # How to sample is one choice for all parts, of which many people know nothing.
            message = str(error) if error.param in SAMPLING else f"{what}: {error}"
            refused = InvalidRequestError(message, param=error.param)
            return AttemptFailure(refused, retryable=False)
        case EngineBusyError():
            kind = UnavailableError if isinstance(error, EngineUnreadyError) else OverloadedError
            told_s = error.retry_after_s
            busy = kind(f"{where}: {error}", retry_after_s=told_s or RETRY_AFTER_S)
            return AttemptFailure(busy, "busy", cooldown_s=told_s or 0.0, passes=told_s is not None)
        case UpstreamError():
            failed = unavailable(f"{where}: {error}")
            return AttemptFailure(failed, "engine", cooldown_s=COOLDOWN_S)
        case EngineError():
            return AttemptFailure(unavailable(f"{where}: {error}"), "engine")
        case SilenceError():
            silent = unavailable(f"{where} does not respond")
            return AttemptFailure(silent, "silent")
        case LeaseLostError():
            message = f"{what}: decoder {replica} dropped it after the scheduler's lease expired"
            return AttemptFailure(NodeFailedError(message), "lease_lost")
        case NodeFailedError() | UnavailableError():
            return AttemptFailure(error)
        case PlatoError():
            return AttemptFailure(error, retryable=False)
        case asyncio.CancelledError():
            return AttemptFailure(NodeFailedError(f"{what} was cancelled by its decoder"))
        case _:
            logger.info("attempt failed", exc_info=error)
            message = f"{what} failed on decoder {replica} ({type(error).__name__}); ask again"
            return AttemptFailure(NodeFailedError(message))
