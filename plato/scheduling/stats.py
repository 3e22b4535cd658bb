"""State and counters of a scheduler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from plato.metrics import Recorder, table
from plato.metrics.recorder import Totals


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """Current state, and counters since the scheduler started."""

    running: int
    """Runs in flight here, those taken over included."""
    waiting: int
    """Runs waiting for admission."""
    branches_waiting: int
    """Nodes that could be decoded, and wait because of what that would cost others."""
    avoided: int
    """Decoders that get no work because they failed recently."""
    silences: int
    """Times a decoder counted as lost because it was silent."""
    snapshots: int
    """KV snapshots fetched from decoders."""
    writes_pending: int
    """Writes waiting for the context store."""
    writes_dropped: int
    """Writes that never reached the context store."""


class SchedulerSampler:
    """Records a scheduler's state and counters."""

    def __init__(self, recorder: Recorder, stats: Callable[[], SchedulerStats]) -> None:
        self._recorder = recorder
        self._stats = stats
        self._totals = Totals(recorder)

    def __call__(self) -> None:
        """Record the current values."""
        stats = self._stats()
        self._recorder.set(table.RUNS_IN_FLIGHT, stats.running)
        self._recorder.set(table.RUNS_WAITING, stats.waiting)
        self._recorder.set(table.BRANCHES_WAITING, stats.branches_waiting)
        self._recorder.set(table.DECODERS_AVOIDED, stats.avoided)
        self._recorder.set(table.STORE_WRITES_PENDING, stats.writes_pending)
        self._totals.record(table.STORE_WRITES_DROPPED, stats.writes_dropped)
        self._totals.record(table.DECODER_SILENCES, stats.silences)
        self._totals.record(table.KV_SNAPSHOTS, stats.snapshots)
