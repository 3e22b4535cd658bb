"""A scheduler's index of the prefixes cached by each replica."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from plato.engine import Prompt, StoredPrefix

MAX_CHAINS = 65_536


class KVIndex:
    """Maps a prefix, by the chained hash of its last segment, to the replicas that hold its KV.

    Entries are hints; a stale one costs a prefill. An LRU of at most `max_chains` prefixes.
    """

    def __init__(self, max_chains: int = MAX_CHAINS) -> None:
        self._max_chains = max_chains
        self._holders: OrderedDict[bytes, dict[str, int]] = OrderedDict()
        """Chain -> replica -> tokens held."""
        self._chains: dict[str, set[bytes]] = {}
        """Replica -> its chains in `_holders`."""

    def __len__(self) -> int:
        return len(self._holders)

    def hold(self, replica: str, chain: bytes, tokens: int) -> None:
        """Record that `replica` holds the first `tokens` tokens of the prefix `chain`."""
        self._holders.setdefault(chain, {})[replica] = tokens
        self._holders.move_to_end(chain)
        self._chains.setdefault(replica, set()).add(chain)
        if len(self._holders) > self._max_chains:
            gone, holders = self._holders.popitem(last=False)
            for holder in holders:
                self._chains[holder].discard(gone)

    def drop(self, replica: str, chain: bytes) -> None:
        """Record that `replica` has evicted a prefix."""
        holders = self._holders.get(chain)
        if holders is None or holders.pop(replica, None) is None:
            return
        self._chains[replica].discard(chain)
        if not holders:
            del self._holders[chain]

    def forget(self, replica: str) -> None:
        """The replica left or restarted; forget its prefixes."""
        for chain in tuple(self._chains.get(replica, ())):
            self.drop(replica, chain)
        self._chains.pop(replica, None)

    def replace(self, replica: str, held: Iterable[StoredPrefix]) -> None:
        """Record that `replica` holds exactly the prefixes `held`."""
        self.forget(replica)
        for prefix in held:
            self.hold(replica, prefix.chain, prefix.tokens)

    def held_by(self, replica: str) -> dict[bytes, int]:
        """Tokens of each prefix that a replica holds, by chain."""
        return {chain: self._holders[chain][replica] for chain in self._chains.get(replica, ())}

    def tokens(self, replica: str, chain: bytes) -> int:
        """Tokens of the prefix `chain` that a replica holds."""
        return self._holders.get(chain, {}).get(replica, 0)

    def cached(self, prompt: Prompt) -> Mapping[str, int]:
        """Cached leading tokens of `prompt` by replica; replicas without any are omitted."""
        found: dict[str, int] = {}
        for chain in reversed(prompt.hashes):
            holders = self._holders.get(chain)
            if holders:
                self._holders.move_to_end(chain)
                for replica, tokens in holders.items():
                    found.setdefault(replica, tokens)
        # The last token of a prompt is always computed, for its logits.
        most = len(prompt) - 1
        return {replica: min(tokens, most) for replica, tokens in found.items()}
