"""KV events: which named prefixes an engine has cached, and what has changed since the last batch.

A prefix is named by the chained hash of its last segment.
"""

from __future__ import annotations

from plato.engine.prompt import Prompt
from plato.engine.protocol import KVEventBatch, StoredPrefix


class KVEventLog:
    """The named prefixes that are cached. Bounded by whoever stores and removes them."""

    def __init__(self) -> None:
        self._stored: dict[bytes, int] = {}
        """Length of each prefix, in tokens."""
        self._changed: dict[bytes, int] = {}
        """Since the last batch: the length, or 0 for a removed prefix. Only the last change of a
        prefix is kept."""
        self._number = 0

    def __contains__(self, chain: bytes) -> bool:
        return chain in self._stored

    def __len__(self) -> int:
        return len(self._stored)

    def store(self, chain: bytes, tokens: int) -> None:
        """Note that a prefix of `tokens` tokens is cached."""
        self._stored[chain] = self._changed[chain] = tokens

    def remove(self, chain: bytes) -> None:
        """Note that a prefix is no longer cached."""
        del self._stored[chain]
        self._changed[chain] = 0

    def take(self) -> KVEventBatch | None:
        """The events since the last call; `None` if there are none."""
        if not self._changed:
            return None
        changed, self._changed = self._changed, {}
        self._number += 1
        return KVEventBatch(
            self._number,
            stored=tuple(
                StoredPrefix(chain, tokens) for chain, tokens in changed.items() if tokens
            ),
            removed=tuple(chain for chain, tokens in changed.items() if not tokens),
        )

    def snapshot(self) -> KVEventBatch:
        """All named prefixes, as of the last batch or later."""
        stored = tuple(StoredPrefix(chain, tokens) for chain, tokens in self._stored.items())
        return KVEventBatch(self._number, stored=stored, snapshot=True)


def named_ends(prompt: Prompt, computed: int) -> list[tuple[bytes, int]]:
    """(chained hash, length) of the prefixes of `prompt` within its first `computed` tokens.

    The last sampled token of a sequence has no KV: a whole prompt that lacks only that counts as
    one token shorter.
    """
    ends: list[tuple[bytes, int]] = []
    length = 0
    for chain, segment in zip(prompt.hashes, prompt.segments, strict=True):
        length += len(segment.tokens)
        if length <= computed:
            ends.append((chain, length))
        elif length == computed + 1 == len(prompt) and computed > 0:
            ends.append((chain, computed))
    return ends
