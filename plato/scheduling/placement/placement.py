"""The state between placement decisions: lives, loads, bookings, and what lies where."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from plato.engine import KVEventBatch, Load, Prompt, Replica, StoredPrefix
from plato.scheduling.placement.index import KVIndex, SentIndex
from plato.scheduling.placement.policies import LEAST_MOVE, POLICIES
from plato.scheduling.placement.state import Booking, ReplicaState
from plato.scheduling.placement.views import Ask, ReplicaView

ROOM_TOKENS = 512
"""KV that a run should find free, and each sequence that waits already."""
AVOID_S = 3.0
"""How long a replica that has failed gets nothing, while there are others."""
BELIEF_S = 30.0
"""How long we believe in a prefix that we sent and that the replica has not told of."""
LEAST_WARM = 32
"""Tokens that are worth computing before they are needed: about three steps of decoding; for less
the messages cost what is saved."""
SPARE_WIDTH = 1
"""Sequences of a decoder that has time to compute something in advance: it delays each of them by
what it will save one."""
USUAL_OUTPUT = 128
OURS = "kv_aware"
RANKS = 3
"""Replicas of a ranking that a router needs: it takes any other when these do not answer."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a sequence goes, and how many prompt tokens should be cached there."""

    replica: str | None
    predicted_tokens: int
    ranked: tuple[str, ...] = ()
    """That one, and the next best should it not be there."""
    output: int = USUAL_OUTPUT
    source: str = ""
    """A replica that the KV of the prompt should be got from; empty: none."""


class Placement:
    """Ranks replicas for one sequence after the other, in memory and at once.

    What is placed is booked at once, so the siblings of a wide graph see each other: they stay
    together while one replica has room, and spread when it has not. What lies where is known from
    what was sent, and corrected by what replicas tell (see `KVEventFollower`).
    """

    def __init__(
        self,
        seed: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        policy: str = "kv_aware",
        move: float | None = None,
    ) -> None:
        """`policy` is one of `POLICIES`; `move` as in `Ask`."""
        self._move = move
        self._random = random.Random(seed)
        self._clock = clock
        self._policy_name = policy
        self._policy = POLICIES[policy]
        self._states: dict[str, ReplicaState] = {}
        """By replica; those that are gone are dropped whenever something is placed."""
        self._index = KVIndex()
        self._sent = SentIndex()
        self.predicted_tokens = 0
        """Prompt tokens that were predicted to be cached, of all that was placed and answered."""
        self.wrong_tokens = 0
        """Those of them that were not."""

    @property
    def policy(self) -> str:
        """Name of the policy."""
        return self._policy_name

    def use(self, policy: str) -> None:
        """Decide by another policy from now on."""
        self._policy_name, self._policy = policy, POLICIES[policy]

    def choose(
        self,
        prompt: Prompt,
        replicas: Iterable[Replica],
        *,
        run: str = "",
        output: int = USUAL_OUTPUT,
        height: int = 1,
    ) -> Choice:
        """The best replica for `prompt`; none if there is none.

        `output` is how many tokens may be decoded, `height` the nodes on the longest way from
        this one to the end of its graph.
        """
        names = [replica.name for replica in replicas]
        if not names:
            return Choice(None, 0)
        if self._states.keys() != set(names):
            for gone in self._states.keys() - set(names):
                self._forget(gone)
            self._states = {name: self._states.get(name) or ReplicaState(name) for name in names}
        cached = self._index.cached(prompt)
        now = self._clock()
        views = [self._view(name, prompt, cached.get(name, 0), now) for name in names]
        ask = Ask(run, len(prompt), output, height, self._move)
        ranked = self._policy(ask, views, self._random)
        best, predicted, source = ranked[0], cached.get(ranked[0], 0), ""
        if self._move is not None and self._policy_name == OURS:
            holder = max(views, key=lambda view: view.told)
            if holder.told - predicted >= LEAST_MOVE:
                predicted, source = holder.told, holder.name
        return Choice(best, predicted, tuple(ranked[:RANKS]), output, source)

    def spare(
        self, prompt: Prompt, replicas: Iterable[Replica], *, run: str = "", output: int
    ) -> Choice | None:
        """Where `prompt` would go now, if computing it there in advance is worth it.

        `None` where little is missing, the replica has no time, or the policy has no reason to
        place what follows at the same one.
        """
        choice = self.choose(prompt, replicas, run=run, output=output)
        state = self._states.get(choice.replica or "")
        if state is None or self._policy_name != OURS:
            return None
        busy = state.prefill > 0 or state.sequences > SPARE_WIDTH
        avoided = state.avoid_until > self._clock()
        if busy or avoided or len(prompt) - choice.predicted_tokens < LEAST_WARM:
            return None
        return choice

    def _told(self, replica: str, prompt: Prompt) -> int:
        """Leading tokens of `prompt` that `replica` itself says it holds.

        What we only believe, because we sent it, may be being computed yet: nothing to be moved.
        """
        unconfirmed = self._states[replica].unconfirmed
        for chain in reversed(prompt.hashes):
            if chain not in unconfirmed and (held := self._index.tokens(replica, chain)):
                return min(held, len(prompt) - 1)
        return 0

    def cached(self, prompt: Prompt, replica: str) -> int:
        """Leading tokens of `prompt` that `replica` should hold."""
        return self._index.cached(prompt).get(replica, 0) if replica in self._states else 0

    @contextmanager
    def booked(self, prompt: Prompt, choice: Choice, *, suspect: bool = False) -> Iterator[Booking]:
        """Count a placed sequence until it ends. Others keep away from a `suspect`."""
        state = self._states.get(choice.replica or "") or ReplicaState("")
        booking = Booking(state, len(prompt) - choice.predicted_tokens, choice.output, suspect)
        if choice.replica is not None:
            self.learn(prompt, choice.replica)
            if self._policy_name == "prefix_tree":
                self._sent.send(choice.replica, prompt)
        try:
            yield booking
        finally:
            booking.ended()

    @contextmanager
    def warming(self, prompt: Prompt, choice: Choice) -> Iterator[None]:
        """Take a prompt that is computed in advance for no load, as long as that lasts."""
        state = self._states.get(choice.replica or "") or ReplicaState("")
        prefill = len(prompt) - choice.predicted_tokens
        state.warm(1, prefill)
        try:
            yield
        except BaseException:
            state.broken_off(prefill)
            raise
        finally:
            state.warm(-1, -prefill)

    def answered(self, predicted: int, actual: int) -> None:
        """Of a prompt's tokens so many were predicted to be cached, and so many were."""
        self.predicted_tokens += predicted
        self.wrong_tokens += max(0, predicted - actual)

    def has_room(self) -> bool:
        """Whether some decoder has KV memory to spare for another run.

        Decoders say what is free with every chunk; one that has not said anything counts as
        empty. KV of finished sequences can be evicted and counts as free.
        """
        loads = [state.load for state in self._states.values()]
        return not loads or any(
            load is None or load.kv_free > ROOM_TOKENS * (1 + load.waiting) for load in loads
        )

    def full(self) -> bool:
        """Whether every decoder has as many sequences as decode faster side by side.

        More parts would only wait for each other then. By the step times that decoders have
        measured; one that has said nothing yet is not full.
        """
        states = self._states.values()
        return bool(states) and all(
            state.load is not None and 0 < state.load.useful_width <= state.sequences
            for state in states
        )

    def avoid(self, replica: str) -> None:
        """It has just failed: place nothing there for `AVOID_S`, if there is another.

        What it holds is void if it has died; its epoch will tell.
        """
        if replica in self._states:
            self._states[replica].avoid_until = self._clock() + AVOID_S

    @property
    def avoided(self) -> int:
        """Replicas that get nothing now because they have just failed."""
        now = self._clock()
        return sum(state.avoid_until > now for state in self._states.values())

    def learn(self, prompt: Prompt, replica: str, missing: int = 0) -> None:
        """Believe that `replica` holds the prefixes of `prompt`, until it says otherwise.

        Of the whole prompt the last `missing` tokens are not there.
        """
        state = self._states.get(replica)
        if state is None:
            return
        held, until = 0, self._clock() + BELIEF_S
        for chain, segment in zip(prompt.hashes, prompt.segments, strict=True):
            held += len(segment.tokens)
            # What it has told of stays true until it tells of its eviction.
            if chain in state.unconfirmed or not self._index.tokens(replica, chain):
                state.unconfirmed[chain] = until
            self._index.hold(replica, chain, min(held, len(prompt) - missing))

    def observe(self, replica: str, epoch: str, load: Load) -> None:
        """Take a replica's own word on its life and load; comes with every chunk."""
        state = self._states.get(replica)
        if state is None:
            return
        self._enter_epoch(replica, state, epoch)
        state.load = load

    def lives(self) -> dict[str, str]:
        """The epoch of every replica that has been heard of."""
        return {name: state.epoch for name, state in self._states.items()}

    def apply(self, replica: str, epoch: str, change: KVEventBatch) -> bool:
        """Take a replica's word on what it holds.

        False where changes are missing in between, so that a snapshot is needed.
        """
        state = self._states.get(replica)
        if state is None:
            return True
        if change.snapshot:
            self._enter_epoch(replica, state, epoch)
            believed = {
                chain: tokens
                for chain, tokens in self._index.held_by(replica).items()
                if chain in state.unconfirmed
            }
            held = {prefix.chain: prefix.tokens for prefix in change.stored}
            merged = believed | held
            self._index.replace(replica, (StoredPrefix(*item) for item in merged.items()))
            for chain in held:
                state.unconfirmed.pop(chain, None)
            state.change = change.number
            return True
        if epoch != state.epoch or state.change is None:
            return False
        if change.number <= state.change:
            return True
        if change.number != state.change + 1:
            return False
        for prefix in change.stored:
            self._index.hold(replica, prefix.chain, prefix.tokens)
            state.unconfirmed.pop(prefix.chain, None)
        for chain in change.removed:
            self._index.drop(replica, chain)
            state.unconfirmed.pop(chain, None)
        now = self._clock()
        for chain in [chain for chain, until in state.unconfirmed.items() if until < now]:
            # It never came: the sequence was cancelled, or the prefix evicted at once.
            self._index.drop(replica, chain)
            del state.unconfirmed[chain]
        state.change = change.number
        return True

    def _enter_epoch(self, replica: str, state: ReplicaState, epoch: str) -> None:
        if state.epoch not in ("", epoch):
            self._forget(replica)
            state.unconfirmed.clear()
            state.change = None
        state.epoch = epoch

    def _forget(self, replica: str) -> None:
        """It is gone, or lives another life: it holds nothing of what it held."""
        self._index.forget(replica)
        self._sent.forget(replica)

    def _view(self, name: str, prompt: Prompt, cached: int, now: float) -> ReplicaView:
        view = self._states[name].view(now)
        if cached:
            told = 0 if self._move is None else self._told(name, prompt)
            view = replace(view, cached=cached, told=told)
        if self._policy_name == "prefix_tree":
            view = replace(
                view, matched=self._sent.matched(name, prompt), sent=self._sent.sent(name)
            )
        return view
