"""What is known of one replica between placement decisions."""

from __future__ import annotations

from dataclasses import replace

from plato.engine import Load
from plato.scheduling.placement.views import ReplicaView

_NO_LOAD = Load()


class ReplicaState:
    """One replica: its life, its own word on its load, and what we have placed there.

    A decision looks at every replica, and little changes between two of them: what it sees of this
    one is kept until something does.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.epoch = ""
        self.change: int | None = None
        """Number of the last change of its holdings that was applied; `None`: none of this life."""
        self.unconfirmed: dict[bytes, float] = {}
        """Prefixes that we believe to be there because we sent them, and until when, if the replica
        does not say so; swept with every change of its holdings."""
        self.avoid_until = 0.0
        """In the clock of the placement: it failed a moment ago."""
        self._load: Load | None = None
        self._sequences = 0
        """Placed by us and not ended; the replica's own load trails behind."""
        self._prefill = 0
        """Prompt tokens of ours that are not computed yet."""
        self._kv = 0
        """KV that sequences of ours will take, and that their replica does not know of yet."""
        self._suspects = 0
        """Sequences of ours there that may be what kills replicas."""
        self._warmings = 0
        """Sequences of ours there that nobody waits for."""
        self._warming_prefill = 0
        """Their prompt tokens. They are part of the replica's own load, but everything else goes
        before them."""
        self._view: ReplicaView | None = None

    @property
    def load(self) -> Load | None:
        """Its own word; `None`: it has not said anything."""
        return self._load

    @load.setter
    def load(self, load: Load) -> None:
        self._load = load
        self._view = None

    def book(self, *, sequences: int = 0, prefill: int = 0, kv: int = 0, suspects: int = 0) -> None:
        """Count what is placed there, in sequences and tokens; less than 0: what is gone."""
        self._sequences += sequences
        self._prefill += prefill
        self._kv += kv
        self._suspects += suspects
        self._view = None

    def warm(self, sequences: int, prefill: int) -> None:
        """Count what is computed there in advance; less than 0: what is gone."""
        self._warmings += sequences
        self._warming_prefill += prefill
        self._view = None

    def broken_off(self, prefill: int) -> None:
        """A sequence with so much to compute is gone, and the replica's last word is older."""
        if self._load is not None:
            self.load = replace(
                self._load,
                running=max(0, self._load.running - 1),
                prefill_tokens=max(0, self._load.prefill_tokens - prefill),
            )

    @property
    def sequences(self) -> int:
        """Sequences that decode or wait there, without those that nobody waits for."""
        load = self._load or _NO_LOAD
        return max(load.running + load.waiting - self._warmings, self._sequences)

    @property
    def prefill(self) -> int:
        """Prompt tokens that wait to be computed there, without those that nobody waits for."""
        load = self._load or _NO_LOAD
        return max(load.prefill_tokens - self._warming_prefill, self._prefill)

    def view(self, now: float) -> ReplicaView:
        """What a prompt sees of which nothing is cached there."""
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
    """A placed sequence, as it weighs on its replica."""

    def __init__(self, state: ReplicaState, prefill: int, output: int, suspect: bool) -> None:
        self._state = state
        self._prefill = prefill
        self._kv = prefill + output
        self._suspect = suspect
        state.book(sequences=1, prefill=prefill, kv=self._kv, suspects=suspect)

    def prefilled(self) -> None:
        """Its prompt is computed, and the replica's own load counts it. Idempotent."""
        self._state.book(prefill=-self._prefill, kv=-self._kv)
        self._prefill = self._kv = 0

    def ended(self) -> None:
        """It is gone."""
        self.prefilled()
        self._state.book(sequences=-1, suspects=-self._suspect)
