"""A scheduler's state of one decoder replica."""

from __future__ import annotations

from dataclasses import replace

from plato.engine import Load
from plato.scheduling.placement.policy import ReplicaView

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
        self._prefill = 0
        """Booked prompt tokens that are not computed yet."""
        self._kv = 0
        """KV tokens of booked sequences that the reported load does not count yet."""
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
        self._view = None

    def book(self, *, sequences: int = 0, prefill: int = 0, kv: int = 0, suspects: int = 0) -> None:
        """Add to what is booked there, in sequences and tokens; negative values end bookings."""
        self._sequences += sequences
        self._prefill += prefill
        self._kv += kv
        self._suspects += suspects
        self._view = None

    @property
    def sequences(self) -> int:
        """Sequences that run or wait there."""
        load = self._load or _NO_LOAD
        return max(load.running + load.waiting, self._sequences)

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

    def __init__(self, state: ReplicaState, prefill: int, output: int, suspect: bool) -> None:
        self._state = state
        self._prefill = prefill
        self._kv = prefill + output
        self._suspect = suspect
        state.book(sequences=1, prefill=prefill, kv=self._kv, suspects=suspect)

    def prefilled(self) -> None:
        """Note that its prompt is computed, so that the reported load counts it. Idempotent."""
        self._state.book(prefill=-self._prefill, kv=-self._kv)
        self._prefill = self._kv = 0

    def ended(self) -> None:
        """Note the end of the sequence."""
        self.prefilled()
        self._state.book(sequences=-1, suspects=-self._suspect)
