"""Placement policies: pure functions from an ask and the replicas to a ranking, best first.

`kv_aware` is ours. The others are what systems of the field do, to compare with: the same state,
the same bookings, another order.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from plato.scheduling.placement.views import Ask, ReplicaView

Policy = Callable[[Ask, Sequence[ReplicaView], random.Random], list[str]]

SEQUENCE_SHARE = 32
"""What one more decoding neighbour costs, in prompt tokens: a step grows by a few percent for
each, over about a hundred steps of a node."""
WAITING_SHARE = 128
"""What one more sequence that waits for a place in the batch costs, in prompt tokens: some node
must end before it begins."""
FULL_SHARE = 256
"""What finding no memory for it costs, in prompt tokens: several sequences must end, as a rule,
before it begins. A longer prefix than this is worth that wait."""
LEAST_MOVE = 256
"""Tokens of KV that are worth a call to another replica."""
SUSPECT_SHARE = 4096
"""What a neighbour costs that may be what kills replicas, in prompt tokens: better go elsewhere
and compute the prompt again."""

# Of SGLang's cache-aware router (sgl-router, defaults of its command line).
IMBALANCE = 64
IMBALANCE_RATIO = 1.5
MATCH_SHARE = 0.3


def kv_aware(ask: Ask, replicas: Sequence[ReplicaView], chance: random.Random) -> list[str]:
    """The fewest tokens of work until the sequence decodes, as it slows and is slowed.

    cost = prompt tokens not cached there, and those that they push out of the cache, which will be
    computed again (as in Preble, arXiv 2407.00023); once for itself and once for each sequence
    there, which wait for them too + prefill queued there + a share for each sequence there
    + a share if it has no memory for it now, so that sequences must end there before it begins.
    A replica whose whole budget is too small comes behind all others, and one that has just failed
    behind those. Decided for each ask by itself: one hot replica turns affinity off for nobody.
    """
    most = max(view.told for view in replicas) if ask.move is not None else 0
    keys = [
        (view.avoided, not _fits(ask, view), _cost(ask, view, most), chance.random(), view.name)
        for view in replicas
    ]
    return [key[-1] for key in sorted(keys)]


def _cost(ask: Ask, view: ReplicaView, most: int) -> float:
    """See `kv_aware`; `most` is how much of the prompt some replica says it holds."""
    missing = ask.prompt - view.cached
    # What is decoded is left out: it takes the same room everywhere.
    displaced = 0 if view.unused is None else missing + ask.output - view.unused
    displaced = min(missing, displaced) if displaced > 0 else 0
    compute: float = missing
    if ask.move is not None and most - view.cached >= LEAST_MOVE:
        compute = ask.prompt - most + ask.move * (most - view.cached)
    is_short = view.free is not None and view.free < missing + ask.output
    return (
        (1 + view.sequences) * (compute + displaced)
        + view.prefill
        + SEQUENCE_SHARE * view.sequences
        + WAITING_SHARE * view.waiting
        + (FULL_SHARE if is_short else 0)
        + SUSPECT_SHARE * view.suspects
    )


def _fits(ask: Ask, view: ReplicaView) -> bool:
    return view.capacity is None or view.capacity >= ask.prompt + ask.output


def random_choice(ask: Ask, replicas: Sequence[ReplicaView], chance: random.Random) -> list[str]:
    """Any."""
    names = [view.name for view in replicas]
    chance.shuffle(names)
    return names


def power_of_two(ask: Ask, replicas: Sequence[ReplicaView], chance: random.Random) -> list[str]:
    """Of two at random the one with fewer sequences (Mitzenmacher, 2001), as Ray Serve has it."""
    pair = chance.sample(list(replicas), min(2, len(replicas)))
    pair.sort(key=lambda view: view.sequences)
    rest = [view.name for view in replicas if view not in pair]
    chance.shuffle(rest)
    return [*(view.name for view in pair), *rest]


def consistent_hash(ask: Ask, replicas: Sequence[ReplicaView], chance: random.Random) -> list[str]:
    """One replica for all of a run (rendezvous hashing, Thaler and Ravishankar, 1998)."""

    def weight(view: ReplicaView) -> bytes:
        return hashlib.blake2b(f"{ask.run}\0{view.name}".encode(), digest_size=8).digest()

    return [view.name for view in sorted(replicas, key=weight)]


def prefix_tree(ask: Ask, replicas: Sequence[ReplicaView], chance: random.Random) -> list[str]:
    """The longest match in what was sent before, unless the load is uneven, as gateways do it.

    With loads further apart than a bound, the least busy; else the longest match if it is a good
    part of the prompt; else the one with the least sent to it.
    """
    loads = [view.sequences for view in replicas]
    uneven = max(loads) - min(loads) > IMBALANCE and max(loads) > IMBALANCE_RATIO * min(loads)
    best = max(view.matched for view in replicas)
    if uneven:
        ranked = sorted(replicas, key=lambda view: (view.sequences, chance.random()))
    elif best > MATCH_SHARE * ask.prompt:
        ranked = sorted(replicas, key=lambda view: (-view.matched, view.sent, chance.random()))
    else:
        ranked = sorted(replicas, key=lambda view: (view.sent, chance.random()))
    return [view.name for view in ranked]


POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        "kv_aware": kv_aware,
        "random": random_choice,
        "power_of_two": power_of_two,
        "consistent_hash": consistent_hash,
        "prefix_tree": prefix_tree,
    }
)
