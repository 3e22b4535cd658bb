"""A scheduler as it stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """State, and counters since the scheduler started."""

    running: int
    """Runs in flight here, those that were taken over included."""
    waiting: int
    """Runs that wait for their admission."""
    avoided: int
    """Decoders that get nothing now because they have just failed."""
    silences: int
    """Times a decoder was silent until it counted as lost."""
    snapshots: int
    """Times a decoder was asked for all that it holds."""
    writes_pending: int
    """Writes that wait for the context store."""
    writes_dropped: int
    """Writes that were lost on their way there."""
