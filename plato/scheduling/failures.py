"""Why an attempt failed, and whether to retry."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, fields

from plato.breaker import COOLDOWN_S
from plato.engine import (
    EngineBusyError,
    EngineError,
    RequestRefusedError,
    SamplingParams,
    UpstreamError,
)
from plato.errors import (
    InvalidRequestError,
    NodeFailedError,
    OverloadedError,
    PlatoError,
    UnavailableError,
)

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

    @property
    def blames_replica(self) -> bool:
        """Whether its replica should be avoided."""
        return self.reason != "lease_lost"

    @property
    def silent(self) -> bool:
        """Whether the decoder was silent, as opposed to reporting an error."""
        return self.reason == "silent"


def classify_failure(error: BaseException, what: str, replica: str) -> AttemptFailure:
    """Classify an error of an attempt; `what` names the node or plan to the user."""

    def unavailable(message: str) -> UnavailableError:
        return UnavailableError(f"{what}: {message}", retry_after_s=RETRY_AFTER_S)

    match error:
        case RequestRefusedError():
            # How to sample is one choice for all parts, of which many people know nothing.
            message = str(error) if error.param in SAMPLING else f"{what}: {error}"
            refused = InvalidRequestError(message, param=error.param)
            return AttemptFailure(refused, retryable=False)
        case EngineBusyError():
            overloaded = OverloadedError(f"{what}: {error}", retry_after_s=RETRY_AFTER_S)
            return AttemptFailure(overloaded, "busy")
        case UpstreamError():
            return AttemptFailure(unavailable(str(error)), "engine", cooldown_s=COOLDOWN_S)
        case EngineError():
            return AttemptFailure(unavailable(str(error)), "engine")
        case SilenceError():
            silent = unavailable(f"decoder {replica} does not respond")
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
