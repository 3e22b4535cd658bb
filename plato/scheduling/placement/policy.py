"""What a placement policy sees, and what it decides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from plato.engine import Prompt


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """A sequence that needs a replica."""

    run_id: str
    prompt: Prompt
    output: int
    """Tokens that it may decode."""


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica, as one request sees it. Lengths are in tokens."""

    name: str
    cached: int = 0
    """Leading prompt tokens that should be cached there."""
    confirmed: int = 0
    """Leading prompt tokens that its KV events confirm: other replicas can import these."""
    prefill: int = 0
    """Prompt tokens queued for prefill."""
    sequences: int = 0
    """Sequences that run or wait there."""
    waiting: int = 0
    """Those of them that wait for a place in the batch."""
    free: int | None = None
    """KV that is unused or can be evicted; `None`: not reported yet."""
    unused: int | None = None
    """KV that holds nothing; `None`: not reported yet."""
    capacity: int | None = None
    """The KV budget; `None`: not reported yet."""
    suspects: int = 0
    """Sequences there that may be what crashes replicas."""
    avoided: bool = False
    """It failed a moment ago."""


class Policy(Protocol):
    """Decides which replica decodes a sequence.

    To write one, inherit from this class and implement `rank`. The scheduler calls it from its
    event loop, so no method may block.
    """

    def rank(
        self, sequence: PlacementRequest, replicas: Sequence[ReplicaView], chance: random.Random
    ) -> list[str]:
        """Return the names of all `replicas`, best first. Draw random numbers from `chance`."""
        ...

    def source(
        self, sequence: PlacementRequest, target: ReplicaView, replicas: Sequence[ReplicaView]
    ) -> ReplicaView | None:
        """The replica that `target` imports its `confirmed` tokens from; `None`: no transfer."""
        return None

    def placed(self, sequence: PlacementRequest, replica: str) -> None:
        """Note that `sequence` goes to `replica`."""
        return

    def forget(self, replica: str) -> None:
        """Drop what is known of `replica`: it left or restarted."""
        return
