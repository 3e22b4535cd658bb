"""Which replica holds the KV of which prefix, as far as a scheduler knows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from plato.engine import Prompt, StoredPrefix

MAX_CHAINS = 65_536


class KVIndex:
    """Holders by the chained hash of a prefix's last segment.

    Hints: what it says may be gone or never have come, and then costs a prefill. At most
    `max_chains` prefixes, the least recently looked for go first.
    """

    def __init__(self, max_chains: int = MAX_CHAINS) -> None:
        self._max_chains = max_chains
        self._holders: OrderedDict[bytes, dict[str, int]] = OrderedDict()
        """Chain -> replica -> tokens held."""
        self._chains: dict[str, set[bytes]] = {}
        """The same by replica."""

    def __len__(self) -> int:
        return len(self._holders)

    def hold(self, replica: str, chain: bytes, tokens: int) -> None:
        """It holds the first `tokens` tokens of a prefix."""
        self._holders.setdefault(chain, {})[replica] = tokens
        self._holders.move_to_end(chain)
        self._chains.setdefault(replica, set()).add(chain)
        if len(self._holders) > self._max_chains:
            gone, holders = self._holders.popitem(last=False)
            for holder in holders:
                self._chains[holder].discard(gone)

    def drop(self, replica: str, chain: bytes) -> None:
        """It has evicted a prefix."""
        holders = self._holders.get(chain)
        if holders is None or holders.pop(replica, None) is None:
            return
        self._chains[replica].discard(chain)
        if not holders:
            del self._holders[chain]

    def forget(self, replica: str) -> None:
        """It is gone, or lives another life: it holds nothing of what it held."""
        for chain in tuple(self._chains.get(replica, ())):
            self.drop(replica, chain)
        self._chains.pop(replica, None)

    def replace(self, replica: str, held: Iterable[StoredPrefix]) -> None:
        """It holds exactly this."""
        self.forget(replica)
        for prefix in held:
            self.hold(replica, prefix.chain, prefix.tokens)

    def held_by(self, replica: str) -> dict[bytes, int]:
        """Length of every prefix that a replica holds."""
        return {chain: self._holders[chain][replica] for chain in self._chains.get(replica, ())}

    def tokens(self, replica: str, chain: bytes) -> int:
        """How many tokens of a prefix a replica holds."""
        return self._holders.get(chain, {}).get(replica, 0)

    def cached(self, prompt: Prompt) -> Mapping[str, int]:
        """Leading tokens of `prompt` by replica; those without any are left out."""
        found: dict[str, int] = {}
        for chain in reversed(prompt.hashes):
            holders = self._holders.get(chain)
            if holders:
                self._holders.move_to_end(chain)
                for replica, tokens in holders.items():
                    found.setdefault(replica, tokens)
        # The last token of a prompt is always computed: its logits are needed.
        most = len(prompt) - 1
        return {replica: min(tokens, most) for replica, tokens in found.items()}


class SentIndex:
    """What a gateway would believe: every prompt that was sent somewhere is there.

    Bounded by `max_tokens` for each replica, the oldest prompts go first; nobody tells it what
    replicas really evict.
    """

    def __init__(self, max_tokens: int = 1 << 20) -> None:
        self._max_tokens = max_tokens
        self._sent: dict[str, OrderedDict[bytes, tuple[int, int]]] = {}
        """Replica -> chain -> (length, tokens of its last segment)."""
        self._tokens: dict[str, int] = {}

    def send(self, replica: str, prompt: Prompt) -> None:
        """A prompt was sent."""
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
        """It is gone."""
        self._sent.pop(replica, None)
        self._tokens.pop(replica, None)
