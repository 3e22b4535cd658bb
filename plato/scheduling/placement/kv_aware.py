"""The default policy: where the prefix is cached, unless waiting there costs more."""

from __future__ import annotations

import random
from collections.abc import Sequence

from plato.scheduling.placement.policy import PlacementRequest, Policy, ReplicaView

SEQUENCE_SHARE = 32
"""Cost of one more decoding neighbour, in prompt tokens: each lengthens a step by a few percent,
over about a hundred steps of a node."""
WAITING_SHARE = 128
"""Cost of one more sequence that waits for a place in the batch, in prompt tokens: some node must
end before it begins."""
FULL_SHARE = 256
"""Cost of finding no memory, in prompt tokens: as a rule several sequences must end before it
begins. A longer prefix than this is worth that wait."""
LEAST_MOVE = 256
"""Tokens of KV that are worth a call to another replica."""
SUSPECT_SHARE = 4096
"""Cost of a neighbour that may be what crashes replicas, in prompt tokens: better go elsewhere and
compute the prompt again."""


class KVAware(Policy):
    """The fewest tokens of work until the sequence decodes, as it slows and is slowed.

    cost = prompt tokens not cached there, and those that they push out of the cache, which will be
    computed again (as in Preble, arXiv 2407.00023); once for itself and once for each sequence
    there, which wait for them too + prefill queued there + a share for each sequence there
    + a share if it has no memory for it now, so that sequences must end there before it begins.
    A replica whose whole budget is too small comes after all others, and one that has just failed
    after those. Each request is decided on its own: one hot replica does not turn affinity off for
    the others.
    """

    def __init__(self, move_cost: float | None = None) -> None:
        """Create the policy.

        Args:
            move_cost: cost of importing the KV of a token from another replica, in tokens
                computed; `None`: KV is never moved.
        """
        self._move_cost = move_cost

    def rank(
        self, sequence: PlacementRequest, replicas: Sequence[ReplicaView], chance: random.Random
    ) -> list[str]:
        """See `Policy.rank`."""
        length, output = len(sequence.prompt), sequence.output
        importable = max(view.confirmed for view in replicas)
        keys = [
            (
                view.avoided,
                view.capacity is not None and view.capacity < length + output,
                self._cost(view, length, output, importable),
                chance.random(),
                view.name,
            )
            for view in replicas
        ]
        return [key[-1] for key in sorted(keys)]

    def source(
        self, sequence: PlacementRequest, target: ReplicaView, replicas: Sequence[ReplicaView]
    ) -> ReplicaView | None:
        """See `Policy.source`."""
        if self._move_cost is None:
            return None
        holder = max(replicas, key=lambda view: view.confirmed)
        return holder if holder.confirmed - target.cached >= LEAST_MOVE else None

    def _cost(self, view: ReplicaView, length: int, output: int, importable: int) -> float:
        """See the class; `importable` is the longest confirmed prefix of the prompt."""
        missing = length - view.cached
        # Decoded tokens are left out: they take the same room everywhere.
        displaced = 0 if view.unused is None else missing + output - view.unused
        displaced = min(missing, displaced) if displaced > 0 else 0
        compute: float = missing
        if self._move_cost is not None and importable - view.cached >= LEAST_MOVE:
            compute = length - importable + self._move_cost * (importable - view.cached)
        is_short = view.free is not None and view.free < missing + output
        return (
            (1 + view.sequences) * (compute + displaced)
            + view.prefill
            + SEQUENCE_SHARE * view.sequences
            + WAITING_SHARE * view.waiting
            + (FULL_SHARE if is_short else 0)
            + SUSPECT_SHARE * view.suspects
        )
