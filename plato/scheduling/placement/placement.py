"""Placement decisions: asks the policy, and books what it decides."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from plato.engine import Prompt, Replica
from plato.scheduling.placement.kv_aware import KVAware
from plato.scheduling.placement.policy import PlacementRequest, Policy
from plato.scheduling.placement.replicas import ReplicaTable
from plato.scheduling.placement.state import Booking

USUAL_OUTPUT = 128
RANKS = 3
"""Replicas of a ranking that a router needs: it takes any other when these do not answer."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a sequence goes, and how many prompt tokens should be cached there."""

    sequence: PlacementRequest
    replica: str | None
    predicted_tokens: int
    ranked: tuple[str, ...] = ()
    """`replica`, and the next best in case it is gone."""
    source: str = ""
    """Replica to import the prompt's KV from; empty: none."""


class Placement:
    """Chooses replicas by a policy, in memory and without waiting.

    A choice is booked at once, so the siblings of a wide graph see each other: they stay together
    while one replica has room, and spread when it has not.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        seed: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """The default policy is `KVAware()`, which moves no KV."""
        self._policy = policy or KVAware()
        self._random = random.Random(seed)
        self.replicas = ReplicaTable(clock, on_forget=self._policy.forget)

    def choose(
        self,
        prompt: Prompt,
        replicas: Iterable[Replica],
        *,
        run_id: str = "",
        output: int = USUAL_OUTPUT,
    ) -> Choice:
        """The best replica for `prompt`, of which up to `output` tokens will be decoded."""
        sequence = PlacementRequest(run_id, prompt, output)
        names = [replica.name for replica in replicas]
        if not names:
            return Choice(sequence, None, 0)
        self.replicas.update(names)
        views = self.replicas.views(prompt)
        ranked = self._policy.rank(sequence, views, self._random)
        target = views[names.index(ranked[0])]
        source = self._policy.source(sequence, target, views)
        return Choice(
            sequence,
            target.name,
            source.confirmed if source else target.cached,
            tuple(ranked[:RANKS]),
            source.name if source else "",
        )

    @contextmanager
    def booked(self, choice: Choice, *, suspect: bool = False) -> Iterator[Booking]:
        """Count a placed sequence until it ends. Others keep away from a `suspect`."""
        sequence = choice.sequence
        prefill = len(sequence.prompt) - choice.predicted_tokens
        booking = self.replicas.book(
            choice.replica, sequence.run_id, prefill, sequence.output, suspect=suspect
        )
        if choice.replica is not None:
            self.replicas.learn(sequence.prompt, choice.replica)
            self._policy.placed(sequence, choice.replica)
        try:
            yield booking
        finally:
            booking.ended()
