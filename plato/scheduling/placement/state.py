"""A scheduler's state of one decoder replica."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from plato.engine import Load
from plato.engine.step_times import StepTimes
from plato.scheduling.placement.neighbours import Neighbours
from plato.scheduling.placement.policy import ReplicaView

REPORT_S = 2.0
"""How long a report counts at a replica where this scheduler has nothing, and hears no more."""
_NO_LOAD = Load()


class ReplicaState:
    """One replica: its epoch, its reported load, and the sequences placed there.

    A placement decision views every replica and few of them change in between, so the view is
    cached.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.epoch = ""
        self.last_change: int | None = None
        """Number of the last applied batch of KV events; `None`: none of this epoch."""
        self.unconfirmed: dict[bytes, float] = {}
        """Prefixes sent there but not confirmed by a KV event, with their expiry, the first to
        expire first; swept with every one that is added and every batch of events."""
        self.avoid_until = 0.0
        """After a failure; in the table's clock."""
        self._load: Load | None = None
        self._sequences = 0
        """Booked sequences; the reported load lags."""
        self._unreported = 0
        """Those of them that were booked since the last report."""
        self.reported_at = -math.inf
        """When that was, in the table's clock."""
        self.reports = 0
        """How often the load was reported."""
        self._prefill = 0
        """Booked prompt tokens that are not computed yet."""
        self._kv = 0
        """KV tokens of booked sequences that the reported load does not count yet."""
        self._runs: Counter[str] = Counter()
        """Booked sequences by run; runs without any are dropped."""
        self._observed = StepTimes()
        """Between the chunks that came from there, for engines that measure no steps."""
        self._suspects = 0
        """Booked sequences suspected of crashing replicas."""
        self._view: ReplicaView | None = None

    @property
    def load(self) -> Load | None:
        """The last reported load; `None`: none yet."""
        return self._load

    @load.setter
    def load(self, load: Load) -> None:
        self._load = load
        self._unreported = 0
        self.reports += 1
        self._view = None

    def book(self, *, prefill: int = 0, kv: int = 0, suspects: int = 0) -> None:
        """Add to what is booked there, in tokens and sequences; negative values end bookings."""
        self._prefill += prefill
        self._kv += kv
        self._suspects += suspects
        self._view = None

    def enter(self, run_id: str) -> None:
        """Book a sequence of a run."""
        self._sequences += 1
        self._unreported += 1
        self._runs[run_id] += 1
        self._view = None

    def leave(self, run_id: str, reports: int) -> None:
        """End the booking of a sequence that was made after so many reports."""
        self._sequences -= 1
        self._unreported -= reports == self.reports
        self._runs[run_id] -= 1
        if not self._runs[run_id]:
            del self._runs[run_id]
        self._view = None

    def note_step(self, seconds: float) -> None:
        """A sequence there has waited so long for its next token."""
        if self._load is None or not self._load.step_times:
            self._observed.note(max(1, self.sequences), seconds)

    def neighbours(self, run_id: str, now: float, *, counted: bool) -> Neighbours:
        """What decodes there beside a run; `counted`: it has sequences there already."""
        load, known = self._load or _NO_LOAD, self._runs.keys() - {run_id}
        if not self._runs and now > self.reported_at + REPORT_S:
            # The last chunk may be of a sequence that was cancelled after it.
            return Neighbours(0, load.places, 0, False, load.step_times, load.prefill_s)
        others = max(len(known), load.runs - counted)
        # Others may be planning, or have another scheduler: only their number is known.
        single = others > len(known) or any(self._runs[other] == 1 for other in known)
        times = load.step_times or self._observed.curve
        return Neighbours(self.sequences, load.places, others, single, times, load.prefill_s)

    @property
    def sequences(self) -> int:
        """Sequences that run or wait there."""
        load = self._load or _NO_LOAD
        return max(load.running + load.waiting + self._unreported, self._sequences)

    @property
    def prefill(self) -> int:
        """Prompt tokens queued for prefill."""
        load = self._load or _NO_LOAD
        return max(load.prefill_tokens, self._prefill)

    def view(self, now: float) -> ReplicaView:
        """The view of the replica for a prompt without cached tokens there."""
        if self._view is None:
            load = self._load
            self._view = ReplicaView(
                self.name,
                prefill=self.prefill,
                sequences=self.sequences,
                waiting=load.waiting if load else 0,
                free=None if load is None else load.kv_free - self._kv,
                unused=None if load is None else load.kv_free - load.kv_evictable - self._kv,
                capacity=(load.kv_capacity or None) if load else None,
                suspects=self._suspects,
            )
        return replace(self._view, avoided=True) if self.avoid_until > now else self._view


class Booking:
    """A placed sequence, counted at its replica until it ends."""

    def __init__(
        self, state: ReplicaState, run_id: str, prefill: int, output: int, suspect: bool
    ) -> None:
        self._state = state
        self._run_id = run_id
        self._prefill = prefill
        self._kv = prefill + output
        self._suspect = suspect
        self._reports = state.reports
        state.enter(run_id)
        state.book(prefill=prefill, kv=self._kv, suspects=suspect)

    def prefilled(self) -> None:
        """Note that its prompt is computed, so that the reported load counts it. Idempotent."""
        self._state.book(prefill=-self._prefill, kv=-self._kv)
        self._prefill = self._kv = 0

    def ended(self) -> None:
        """Note the end of the sequence."""
        self.prefilled()
        self._state.leave(self._run_id, self._reports)
        self._state.book(suspects=-self._suspect)
