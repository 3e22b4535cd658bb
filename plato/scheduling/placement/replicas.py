"""What a scheduler knows of the decoder replicas between placement decisions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from plato.engine import KVEventBatch, Load, Prompt, StoredPrefix
from plato.scheduling.placement.index import KVIndex
from plato.scheduling.placement.neighbours import Neighbours
from plato.scheduling.placement.policy import ReplicaView
from plato.scheduling.placement.state import Booking, ReplicaState

ROOM_TOKENS = 512
"""KV that a run should find free, and each sequence that waits already."""
AVOID_S = 3.0
"""How long a replica that has failed gets nothing, while there are others."""
BELIEF_S = 30.0
"""How long a prefix that was sent counts as cached without a KV event that confirms it."""


class ReplicaTable:
    """Loads, epochs, bookings and cached prefixes of the replicas.

    Replicas report their load and epoch with every chunk (`observe`) and their KV in events
    (`apply`). Until those arrive, what this scheduler sent counts (`learn`, `book`).
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        on_forget: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`on_forget` is called with the name of every replica that left or restarted."""
        self._clock = clock
        self._on_forget = on_forget
        self._states: dict[str, ReplicaState] = {}
        """By name; bounded by the replicas of the last `update`."""
        self._index = KVIndex()

    def update(self, names: list[str]) -> None:
        """Set the replicas that exist, and forget all others."""
        if list(self._states) != names:
            for gone in self._states.keys() - set(names):
                self._forget(gone)
            self._states = {name: self._states.get(name) or ReplicaState(name) for name in names}

    def views(self, prompt: Prompt) -> list[ReplicaView]:
        """All replicas as `prompt` sees them, in the order of `update`."""
        cached = self._index.cached(prompt)
        now = self._clock()
        views = []
        for name, state in self._states.items():
            view = state.view(now)
            if tokens := cached.get(name):
                view = replace(view, cached=tokens, confirmed=self._confirmed(state, prompt))
            views.append(view)
        return views

    def cached(self, prompt: Prompt, replica: str) -> int:
        """Leading tokens of `prompt` that `replica` should hold."""
        return self._index.cached(prompt).get(replica, 0) if replica in self._states else 0

    def book(
        self, replica: str | None, run_id: str, prefill: int, output: int, *, suspect: bool
    ) -> Booking:
        """Count a sequence of so many tokens at `replica`, if that is known."""
        state = self._states.get(replica or "") or ReplicaState("")
        return Booking(state, run_id, prefill, output, suspect)

    def neighbours(self, run_id: str, *, counted: bool) -> dict[str, Neighbours]:
        """What decodes at each replica beside a run; see `ReplicaState.neighbours`."""
        now = self._clock()
        return {
            name: state.neighbours(run_id, now, counted=counted)
            for name, state in self._states.items()
        }

    def note_step(self, replica: str, seconds: float) -> None:
        """A sequence at `replica` has waited so long for its next token."""
        if replica in self._states:
            self._states[replica].note_step(seconds)

    def has_room(self) -> bool:
        """Whether some replica has KV memory to spare for another run.

        One that has not reported yet counts as empty. KV of finished sequences can be evicted and
        counts as free.
        """
        loads = [state.load for state in self._states.values()]
        return not loads or any(
            load is None or load.kv_free > ROOM_TOKENS * (1 + load.waiting) for load in loads
        )

    def avoid(self, replica: str, for_s: float = AVOID_S) -> None:
        """Place nothing at `replica` for some time, if there is another: it has just failed.

        If it restarts, its next epoch voids what it held.
        """
        if replica in self._states:
            self._states[replica].avoid_until = self._clock() + for_s

    @property
    def avoided(self) -> int:
        """Replicas that get nothing now because they have just failed."""
        now = self._clock()
        return sum(state.avoid_until > now for state in self._states.values())

    @property
    def free_in_s(self) -> float:
        """Seconds until some replica is not avoided any more; infinity if there are none."""
        now = self._clock()
        ends = (max(0.0, state.avoid_until - now) for state in self._states.values())
        return min(ends, default=math.inf)

    def observe(self, replica: str, epoch: str, load: Load) -> None:
        """Take the epoch and load that a replica reports with every chunk."""
        state = self._states.get(replica)
        if state is None:
            return
        self._enter_epoch(state, epoch)
        state.load, state.reported_at = load, self._clock()

    def epochs(self) -> dict[str, str]:
        """Epoch by replica; empty for one that has not reported yet."""
        return {name: state.epoch for name, state in self._states.items()}

    def learn(self, prompt: Prompt, replica: str, missing: int = 0) -> None:
        """Count all but the last `missing` tokens of `prompt` as cached at `replica`.

        Holds until a KV event says otherwise, or none confirms it within `BELIEF_S`.
        """
        state = self._states.get(replica)
        if state is None:
            return
        held, until = 0, self._clock() + BELIEF_S
        for chain, segment in zip(prompt.hashes, prompt.segments, strict=True):
            held += len(segment.tokens)
            # A confirmed prefix stays confirmed until an event says that it was evicted.
            if state.unconfirmed.pop(chain, None) or not self._index.tokens(replica, chain):
                state.unconfirmed[chain] = until
            self._index.hold(replica, chain, min(held, len(prompt) - missing))
        self._drop_unconfirmed(state)

    def apply(self, replica: str, epoch: str, change: KVEventBatch) -> bool:
        """Apply a batch of KV events of `replica`.

        Returns whether it could be applied; if not, events before it are missing, and a snapshot
        is needed.
        """
        state = self._states.get(replica)
        if state is None:
            return True
        if change.snapshot:
            self._enter_epoch(state, epoch)
            self._apply_snapshot(state, change)
            return True
        if epoch != state.epoch or state.last_change is None:
            return False
        if change.number <= state.last_change:
            return True
        if change.number != state.last_change + 1:
            return False
        for prefix in change.stored:
            self._index.hold(replica, prefix.chain, prefix.tokens)
            state.unconfirmed.pop(prefix.chain, None)
        for chain in change.removed:
            self._index.drop(replica, chain)
            state.unconfirmed.pop(chain, None)
        self._drop_unconfirmed(state)
        state.last_change = change.number
        return True

    def _apply_snapshot(self, state: ReplicaState, change: KVEventBatch) -> None:
        # What was sent a moment ago may be too young for the snapshot.
        believed = {
            chain: tokens
            for chain, tokens in self._index.held_by(state.name).items()
            if chain in state.unconfirmed
        }
        held = {prefix.chain: prefix.tokens for prefix in change.stored}
        merged = believed | held
        self._index.replace(state.name, (StoredPrefix(*item) for item in merged.items()))
        for chain in held:
            state.unconfirmed.pop(chain, None)
        state.last_change = change.number

    def _drop_unconfirmed(self, state: ReplicaState) -> None:
        """Drop prefixes that never came: cancelled before their prefill, or evicted at once."""
        now = self._clock()
        while state.unconfirmed:
            chain, until = next(iter(state.unconfirmed.items()))
            if until >= now:
                break
            self._index.drop(state.name, chain)
            del state.unconfirmed[chain]

    def _confirmed(self, state: ReplicaState, prompt: Prompt) -> int:
        """Leading tokens of `prompt` that KV events confirm.

        The others may still be in prefill and cannot be moved.
        """
        for chain in reversed(prompt.hashes):
            if chain in state.unconfirmed:
                continue
            if held := self._index.tokens(state.name, chain):
                return min(held, len(prompt) - 1)
        return 0

    def _enter_epoch(self, state: ReplicaState, epoch: str) -> None:
        if state.epoch not in ("", epoch):
            self._forget(state.name)
            state.unconfirmed.clear()
            state.last_change = None
        state.epoch = epoch

    def _forget(self, replica: str) -> None:
        """The replica left or restarted: forget its prefixes."""
        self._index.forget(replica)
        self._on_forget(replica)
