"""Whether a node is decoded again after a failed attempt, and when."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from plato.scheduling.failures import AttemptFailure

BACKOFF_S = 0.1
"""Before the second attempt in a row without a new token; doubles with each, with jitter."""
LONGEST_BACKOFF_S = 2.0
MAX_ATTEMPTS = 4
"""Attempts of a node in all, in units of `Settings.node_attempts`."""
SILENT_COST = 0.5
"""Cost of a silent attempt: a lost receiver of another stream can block a decoder, so silence is
weaker evidence against the node than a crash."""
SUSPECT_AFTER = 2
"""Attempts in a row without a new token after which a node is suspected of crashing replicas."""
PATIENCE_S = 30.0
"""How long a node without a new token waits for decoders that take nothing for now."""


class Retries:
    """The attempts of one node.

    Attempts in a row without a new token are bounded, so a node that crashes every decoder fails
    before it takes down the pool. A decoder that refuses every node for a while tells nothing of
    this one: there the time is bounded.
    """

    def __init__(self, limit: int, made: int, clock: Callable[[], float] = time.monotonic) -> None:
        """At most `limit` attempts in a row; `made` is their number under other schedulers."""
        self._limit = limit
        self._made = made
        self._clock = clock
        self._forget()

    def _forget(self) -> None:
        self._fruitless = self._refused = 0
        self._spent = 0.0
        self._patient_until: float | None = None

    @property
    def suspect(self) -> bool:
        """Whether the node may be what its attempts fail of."""
        return self._fruitless >= SUSPECT_AFTER

    def pause_s(
        self, failure: AttemptFailure, *, progressed: bool, free_in_s: float
    ) -> float | None:
        """The time before the next attempt, in seconds; `None`: the node fails.

        Args:
            failure: of the last attempt; if the node fails of it, its error has the time after
                which it is worth asking again.
            progressed: whether that attempt brought a new token.
            free_in_s: when some decoder is not avoided any more; 0: there is one now.
        """
        if progressed:
            self._forget()
        wait_s = min(failure.cooldown_s, free_in_s)
        if failure.passes:
            self._refused += 1
            now = self._clock()
            if self._patient_until is None:
                self._patient_until = now + PATIENCE_S
            pause_s = wait_s + backoff_s(self._refused)
            if now + pause_s > self._patient_until:
                failure.error.retry_after_s = wait_s
                return None
            return pause_s
        self._fruitless += 1
        self._made += 1
        self._spent += SILENT_COST if failure.silent else 1
        if self._spent >= self._limit or self._made >= MAX_ATTEMPTS * self._limit:
            return None
        return wait_s + backoff_s(self._fruitless)


def backoff_s(failed: int) -> float:
    """Backoff before the next attempt: none at first, since waiting does not revive a process.

    Then it doubles, with jitter, so that nodes that failed together do not retry together.
    """
    if failed <= 1:
        return 0.0
    longest: float = min(LONGEST_BACKOFF_S, BACKOFF_S * 2.0 ** (failed - 2))
    return longest * random.uniform(0.5, 1.0)
