"""A circuit breaker: calls to a service that is unavailable fail fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum, auto

COOLDOWN_S = 1.0


class _State(Enum):
    CLOSED = auto()
    OPEN = auto()
    PROBING = auto()


class CircuitBreaker:
    """Decides whether a call may be made, from how the last ones went (Nygard, *Release It!*).

    Closed: every call is made. The breaker opens after `threshold` consecutive failures, or after
    one timeout. Open: no call is made for `cooldown_s`. Then a single call is admitted as a probe:
    success closes the breaker, failure opens it for another `cooldown_s`.

    Every call that `admit` admits must be followed by exactly one of `succeeded`, `failed` or
    `abandoned`. Not thread-safe: it belongs to one event loop.
    """

    def __init__(
        self,
        *,
        threshold: int = 3,
        cooldown_s: float = COOLDOWN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threshold = threshold
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._state = _State.CLOSED
        self._failures = 0
        self._opened_at = 0.0

    @property
    def available(self) -> bool:
        """Whether the last call succeeded, or none was made yet."""
        return self._failures == 0

    def admit(self) -> bool:
        """Whether a call may be made now."""
        if self._state is _State.OPEN and self._clock() - self._opened_at >= self._cooldown_s:
            self._state = _State.PROBING
            return True
        return self._state is _State.CLOSED

    def succeeded(self) -> None:
        """The call was answered; or the service was heard otherwise, which says as much."""
        self._state = _State.CLOSED
        self._failures = 0

    def failed(self, *, timed_out: bool = False) -> None:
        """The call was not answered; `timed_out` if it exceeded its deadline."""
        self._failures += 1
        if self._state is _State.CLOSED and not timed_out and self._failures < self._threshold:
            return
        self._state = _State.OPEN
        self._opened_at = self._clock()

    def abandoned(self) -> None:
        """The caller gave up: the outcome is unknown, and the next call may be the probe."""
        if self._state is _State.PROBING:
            self._state = _State.OPEN
