"""What a placement decision sees."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ask:
    """A sequence that needs a place. Lengths are in tokens."""

    run: str
    prompt: int
    """Length of its prompt."""
    output: int
    """How much it may decode."""
    height: int = 1
    """Nodes on the longest way from it to the end of its graph, itself included."""
    move: float | None = None
    """What getting the KV of a token from another replica costs, in tokens computed; `None`: it
    is not done."""


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica, as far as it matters to one ask. Lengths are in tokens."""

    name: str
    cached: int = 0
    """Leading prompt tokens that should be there."""
    told: int = 0
    """Leading prompt tokens that it has said are there: those that others can get from it."""
    prefill: int = 0
    """Prompt tokens that wait to be computed there."""
    sequences: int = 0
    """Sequences that decode or wait there."""
    waiting: int = 0
    """Those of them that have no place in the batch yet."""
    free: int | None = None
    """KV that is free or can be evicted; `None`: it has not said."""
    unused: int | None = None
    """KV that holds nothing; `None`: it has not said."""
    capacity: int | None = None
    """KV that its budget holds altogether; `None`: it has not said."""
    suspects: int = 0
    """Sequences there that may be what kills replicas."""
    avoided: bool = False
    """It has failed a moment ago."""
    matched: int = 0
    """Leading prompt tokens that a gateway would believe to be there, from what it has sent."""
    sent: int = 0
    """All that a gateway would believe to be there."""
