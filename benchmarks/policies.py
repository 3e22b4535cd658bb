"""Placement policies of other systems, for comparison with `KVAware`."""

from __future__ import annotations

import hashlib
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from plato.engine import Prompt
from plato.scheduling.placement import KVAware, PlacementRequest, Policy, ReplicaView

# SGLang's cache-aware router (sgl-router, defaults of its command line).
IMBALANCE = 64
IMBALANCE_RATIO = 1.5
MATCH_SHARE = 0.3


class Random(Policy):
    """A random replica."""

    def rank(
        self, sequence: PlacementRequest, replicas: Sequence[ReplicaView], chance: random.Random
    ) -> list[str]:
        """See `Policy.rank`."""
        names = [view.name for view in replicas]
        chance.shuffle(names)
        return names


class PowerOfTwo(Policy):
    """Power of two choices: of two random replicas, the one with fewer sequences, as in Ray Serve.

    Mitzenmacher, 2001.
    """

    def rank(
        self, sequence: PlacementRequest, replicas: Sequence[ReplicaView], chance: random.Random
    ) -> list[str]:
        """See `Policy.rank`."""
        pair = chance.sample(list(replicas), min(2, len(replicas)))
        pair.sort(key=lambda view: view.sequences)
        rest = [view.name for view in replicas if view not in pair]
        chance.shuffle(rest)
        return [*(view.name for view in pair), *rest]


class ConsistentHash(Policy):
    """One replica per run, by rendezvous hashing (Thaler and Ravishankar, 1998)."""

    def rank(
        self, sequence: PlacementRequest, replicas: Sequence[ReplicaView], chance: random.Random
    ) -> list[str]:
        """See `Policy.rank`."""

        def weight(view: ReplicaView) -> bytes:
            return hashlib.blake2b(
                f"{sequence.run_id}\0{view.name}".encode(), digest_size=8
            ).digest()

        return [view.name for view in sorted(replicas, key=weight)]


class PrefixTree(Policy):
    """Longest match with earlier requests, unless the load is uneven, as in gateways.

    If the loads differ by more than a bound: the least busy replica; else the longest match if it
    covers enough of the prompt; else the replica with the fewest tokens sent to it.
    """

    def __init__(self) -> None:
        self._index = SentIndex()

    def rank(
        self, sequence: PlacementRequest, replicas: Sequence[ReplicaView], chance: random.Random
    ) -> list[str]:
        """See `Policy.rank`."""
        loads = [view.sequences for view in replicas]
        uneven = max(loads) - min(loads) > IMBALANCE and max(loads) > IMBALANCE_RATIO * min(loads)
        matched = {view.name: self._index.matched(view.name, sequence.prompt) for view in replicas}
        best = max(matched.values())

        def key(view: ReplicaView) -> tuple[float, ...]:
            sent = self._index.sent(view.name)
            if uneven:
                return view.sequences, chance.random()
            if best > MATCH_SHARE * len(sequence.prompt):
                return -matched[view.name], sent, chance.random()
            return sent, chance.random()

        return [view.name for view in sorted(replicas, key=key)]

    def placed(self, sequence: PlacementRequest, replica: str) -> None:
        """See `Policy.placed`."""
        self._index.send(replica, sequence.prompt)

    def forget(self, replica: str) -> None:
        """See `Policy.forget`."""
        self._index.forget(replica)


class SentIndex:
    """Prompts sent to each replica, which are assumed to be cached there.

    Bounded by `max_tokens` per replica, oldest first; actual evictions are unknown.
    """

    def __init__(self, max_tokens: int = 1 << 20) -> None:
        self._max_tokens = max_tokens
        self._sent: dict[str, OrderedDict[bytes, tuple[int, int]]] = {}
        """Replica -> chain -> (length, tokens of its last segment)."""
        self._tokens: dict[str, int] = {}

    def send(self, replica: str, prompt: Prompt) -> None:
        """Add a prompt."""
        sent = self._sent.setdefault(replica, OrderedDict())
        length = 0
        for chain, segment in zip(prompt.hashes, prompt.segments, strict=True):
            length += len(segment.tokens)
            if chain not in sent:
                self._tokens[replica] = self._tokens.get(replica, 0) + len(segment.tokens)
            sent[chain] = length, len(segment.tokens)
            sent.move_to_end(chain)
        while self._tokens.get(replica, 0) > self._max_tokens:
            _, (_, tokens) = sent.popitem(last=False)
            self._tokens[replica] -= tokens

    def matched(self, replica: str, prompt: Prompt) -> int:
        """Leading tokens of `prompt` that were sent there."""
        sent: Mapping[bytes, tuple[int, int]] = self._sent.get(replica) or {}
        return next((sent[chain][0] for chain in reversed(prompt.hashes) if chain in sent), 0)

    def sent(self, replica: str) -> int:
        """Tokens that were sent there."""
        return self._tokens.get(replica, 0)

    def forget(self, replica: str) -> None:
        """Drop a replica."""
        self._sent.pop(replica, None)
        self._tokens.pop(replica, None)


POLICIES: Mapping[str, Callable[[], Policy]] = MappingProxyType(
    {
        "kv_aware": KVAware,
        "random": Random,
        "power_of_two": PowerOfTwo,
        "consistent_hash": ConsistentHash,
        "prefix_tree": PrefixTree,
    }
)


class ByRunName(Policy):
    """Selects the policy by the name of the run: `random-7` is placed by `random`.

    Policies can be compared on one running pool, whose decoders and schedulers start once.
    """

    def __init__(self) -> None:
        self._policies = {name: new() for name, new in POLICIES.items()}

    def rank(
        self, sequence: PlacementRequest, replicas: Sequence[ReplicaView], chance: random.Random
    ) -> list[str]:
        """See `Policy.rank`."""
        return self._of(sequence).rank(sequence, replicas, chance)

    def placed(self, sequence: PlacementRequest, replica: str) -> None:
        """See `Policy.placed`."""
        self._of(sequence).placed(sequence, replica)

    def forget(self, replica: str) -> None:
        """See `Policy.forget`."""
        for policy in self._policies.values():
            policy.forget(replica)

    def _of(self, sequence: PlacementRequest) -> Policy:
        return self._policies[sequence.run_id.partition("-")[0]]
