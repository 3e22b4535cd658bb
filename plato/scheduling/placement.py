"""Choosing the replica for a sequence: where its prefix lies, unless waiting there costs more."""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from plato.engine import Load, Prompt
from plato.scheduling.protocol import Replica

MAX_CHAINS = 65_536
SEQUENCE_SHARE = 32
"""What one more decoding neighbour costs, in prompt tokens: a step grows by a few percent for
each, over about a hundred steps of a node."""

SUSPECT_SHARE = 4096
"""What a neighbour costs that may be what kills replicas, in prompt tokens: better go elsewhere
and compute the prompt again."""
ROOM_TOKENS = 512
"""KV that a run should find free, and each sequence that waits already."""
AVOID_S = 3.0
"""How long a replica that has failed gets nothing, while there are others."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a sequence goes, and how many prompt tokens should be cached there."""

    replica: str | None
    predicted_tokens: int


@dataclass(slots=True)
class _State:
    """What is known of one replica."""

    epoch: str = ""
    load: Load = field(default_factory=Load)
    booked_sequences: int = 0
    """Placed by us and not ended; the replica's own load trails behind."""
    booked_prefill: int = 0
    """Prompt tokens of ours that are not computed yet."""
    suspects: int = 0
    """Sequences of ours there that may be what kills replicas."""
    avoid_until: float = 0.0
    """In this process's monotonic clock: it failed a moment ago."""


class Booking:
    """A placed sequence, as it weighs on its replica."""

    def __init__(self, state: _State, prefill: int, suspect: bool) -> None:
        self._state = state
        self._prefill = prefill
        self._suspect = suspect
        state.suspects += suspect
        state.booked_sequences += 1
        state.booked_prefill += prefill

    def prefilled(self) -> None:
        """Its prompt is computed. Idempotent."""
        self._state.booked_prefill -= self._prefill
        self._prefill = 0

    def ended(self) -> None:
        """It is gone."""
        self.prefilled()
        self._state.booked_sequences -= 1
        self._state.suspects -= self._suspect


class Placement:
    """Scores replicas in token units, in memory.

    cost = prompt tokens not cached there + prefill queued there + a share for each sequence
    decoding there. The lowest wins, ties at random. What is placed is booked at once, so the
    siblings of a wide graph see each other.
    """

    def __init__(
        self, seed: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._random = random.Random(seed)
        self._clock = clock
        self._states: dict[str, _State] = {}
        """By replica; those that are gone are dropped whenever something is placed."""
        self._chains: OrderedDict[bytes, dict[str, tuple[str, int]]] = OrderedDict()
        """Chained hash -> replica -> (epoch, tokens held); least recently used out first, at
        most `MAX_CHAINS`."""

    def choose(self, prompt: Prompt, replicas: Iterable[Replica]) -> Choice:
        """The best replica for `prompt`; none if there is none."""
        names = [replica.name for replica in replicas]
        if not names:
            return Choice(None, 0)
        for gone in self._states.keys() - set(names):
            self._forget(gone)
        self._states = {name: self._states.get(name, _State()) for name in names}
        now = self._clock()
        usable = [name for name in names if self._states[name].avoid_until <= now] or names
        scored = [(self._cost(prompt, name), name) for name in usable]
        lowest = min(cost for cost, _ in scored)
        name = self._random.choice([name for cost, name in scored if cost == lowest])
        return Choice(name, self.cached(prompt, name))

    def cached(self, prompt: Prompt, replica: str) -> int:
        """Leading tokens of `prompt` that `replica` should hold."""
        state = self._states.get(replica)
        if state is None:
            return 0
        for chain in reversed(prompt.hashes):
            holder = self._chains.get(chain, {}).get(replica)
            if holder is not None and holder[0] in (state.epoch, ""):
                self._chains.move_to_end(chain)
                # The last token of a prompt is always computed: its logits are needed.
                return min(holder[1], len(prompt) - 1)
        return 0

    @contextmanager
    def booked(self, prompt: Prompt, choice: Choice, *, suspect: bool = False) -> Iterator[Booking]:
        """Count a placed sequence until it ends. Others keep away from a `suspect`."""
        state = self._states.get(choice.replica or "") or _State()
        booking = Booking(state, len(prompt) - choice.predicted_tokens, suspect)
        if choice.replica is not None:
            self.learn(prompt, choice.replica, state.epoch)
        try:
            yield booking
        finally:
            booking.ended()

    def has_room(self) -> bool:
        """Whether some decoder has KV memory to spare for another run.

        Decoders say what is free with every chunk; one that has not said anything counts as
        empty. KV of finished sequences can be evicted and counts as free.
        """
        loads = [state.load for state in self._states.values()]
        return not loads or any(
            load == Load() or load.kv_free > ROOM_TOKENS * (1 + load.waiting) for load in loads
        )

    def avoid(self, replica: str) -> None:
        """It has just failed: place nothing there for `AVOID_S`, if there is another.

        What it holds is void if it has died; its epoch will tell.
        """
        if replica in self._states:
            self._states[replica].avoid_until = self._clock() + AVOID_S

    def learn(self, prompt: Prompt, replica: str, epoch: str, missing: int = 0) -> None:
        """Note that `replica` holds the prefixes of `prompt`, but for the last `missing` tokens."""
        held = 0
        for chain, segment in zip(prompt.hashes, prompt.segments, strict=True):
            held += len(segment.tokens)
            self.note(chain, replica, epoch, min(held, len(prompt) - missing))

    def note(self, chain: bytes, replica: str, epoch: str, tokens: int) -> None:
        """Note one KV handle."""
        self._chains.setdefault(chain, {})[replica] = (epoch, tokens)
        self._chains.move_to_end(chain)
        if len(self._chains) > MAX_CHAINS:
            self._chains.popitem(last=False)

    def observe(self, replica: str, epoch: str, load: Load) -> None:
        """Take a replica's own word on its life and load; comes with every chunk."""
        state = self._states.get(replica)
        if state is None:
            return
        if state.epoch not in ("", epoch):
            self._forget(replica)
        state.epoch, state.load = epoch, load

    def _forget(self, replica: str) -> None:
        """It is gone, or lives another life: it holds nothing of what it held."""
        for holders in self._chains.values():
            holders.pop(replica, None)

    def _cost(self, prompt: Prompt, replica: str) -> float:
        state = self._states[replica]
        sequences = max(state.load.running + state.load.waiting, state.booked_sequences)
        prefill = max(state.load.prefill_tokens, state.booked_prefill)
        missing = len(prompt) - self.cached(prompt, replica)
        return missing + prefill + SEQUENCE_SHARE * sequences + SUSPECT_SHARE * state.suspects
