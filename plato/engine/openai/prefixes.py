"""Which prefixes a server should have cached, by the prompts that it has computed."""

from __future__ import annotations

from collections import OrderedDict

from plato.engine.kv_events import KVEventLog, named_ends
from plato.engine.prompt import Prompt

MAX_PREFIXES = 4096
"""Named prefixes that are remembered, the last used ones."""


class SentPrefixes:
    """Named prefixes of what a server has computed: a guess, as it evicts without saying so."""

    def __init__(
        self, granularity: int, *, public_sharing: bool, max_prefixes: int = MAX_PREFIXES
    ) -> None:
        """The server reuses multiples of `granularity` tokens; 0: nothing.

        See `Capabilities.public_sharing`.
        """
        self._granularity = granularity
        self._public_sharing = public_sharing
        self._max_prefixes = max_prefixes
        self._used: OrderedDict[bytes, int] = OrderedDict()
        """Length of each prefix; the least recently used first."""
        self.events = KVEventLog()

    def __contains__(self, chain: bytes) -> bool:
        return chain in self._used

    def note(self, prompt: Prompt, computed: int) -> None:
        """The server has just computed, or found, the first `computed` tokens of `prompt`."""
        for chain, length in self._ends(prompt, computed):
            if reused := self._whole(length):
                if chain not in self._used:
                    self.events.store(chain, reused)
                self._used[chain] = reused
                self._used.move_to_end(chain)
        while len(self._used) > self._max_prefixes:
            chain, _ = self._used.popitem(last=False)
            self.events.remove(chain)

    def cached(self, prompt: Prompt) -> int:
        """Leading tokens of `prompt` that should be cached."""
        return max((self._used.get(chain, 0) for chain in self.chains(prompt)), default=0)

    def chains(self, prompt: Prompt) -> list[bytes]:
        """The chained hashes of the prefixes that `prompt` can share with others."""
        return [chain for chain, _ in self._ends(prompt, len(prompt))]

    def _ends(self, prompt: Prompt, computed: int) -> list[tuple[bytes, int]]:
        """See `named_ends`.

        What is public has one name for all tenants. Without public sharing it is left out, as one
        tenant's says nothing about another's.
        """
        ends = named_ends(prompt, computed)
        if self._public_sharing or not prompt.tenant:
            return ends
        return [(chain, length) for chain, length in ends if length > prompt.public_tokens]

    def _whole(self, length: int) -> int:
        """The part of `length` tokens that can be reused."""
        return length - length % self._granularity if self._granularity else 0
