"""Which prefixes vLLM has cached, by the events of its KV cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from plato.engine.kv_events import KVEventLog, named_ends
from plato.engine.prompt import Prompt

Hash = bytes | int
Keys = tuple[str, ...]
"""What separates equal tokens at the start of a prompt: the adapter and the tenant."""
MAX_PREFIXES = 4096
"""Named prefixes that are reported, the last used ones."""
MAX_EXPECTED = 64
"""Named prefixes whose blocks have not been reported yet."""


@dataclass(frozen=True, slots=True)
class BlocksStored:
    """Consecutive blocks of one sequence were cached."""

    hashes: tuple[Hash, ...]
    parent: Hash | None
    """The block before them; `None`: they begin a prompt."""
    tokens: tuple[int, ...]
    keys: Keys
    """Of the first block."""


@dataclass(frozen=True, slots=True)
class BlocksRemoved:
    """Blocks were evicted."""

    hashes: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class BlocksCleared:
    """All blocks were removed."""


BlockEvent = BlocksStored | BlocksRemoved | BlocksCleared


class BlockIndex:
    """The cached blocks as a trie, and the named prefixes that end in them.

    vLLM evicts the blocks of a sequence from its end, so a prefix is cached as long as its last
    whole block is. Blocks are bounded by vLLM's KV cache.
    """

    def __init__(
        self, block_tokens: int, adapter_of: Callable[[Prompt], str | None] = lambda _: None
    ) -> None:
        """Prefixes are cached in whole blocks of `block_tokens`.

        `adapter_of` is the name of the adapter with which a prompt is computed, if it has one.
        """
        self.events = KVEventLog()
        self._length = block_tokens
        self._adapter_of = adapter_of
        self._blocks: dict[tuple[Hash | Keys, tuple[int, ...]], Hash] = {}
        """The block with these tokens after another block, or at the start of a prompt."""
        self._keys: dict[Hash, tuple[Hash | Keys, tuple[int, ...]]] = {}
        """Inverse of `_blocks`."""
        self._names: dict[Hash, set[bytes]] = {}
        """Chained hashes of the named prefixes whose last whole block this is."""
        self._ends: OrderedDict[bytes, Hash] = OrderedDict()
        """Inverse of `_names`, the least recently used first; at most `MAX_PREFIXES`."""
        self._expected: OrderedDict[bytes, tuple[Prompt, int]] = OrderedDict()
        """Named prefixes that were computed, but whose blocks are not known yet, with the length of
        their whole blocks; at most `MAX_EXPECTED`."""

    @property
    def tokens(self) -> int:
        """Tokens in cached blocks."""
        return len(self._keys) * self._length

    def apply(self, events: Iterable[BlockEvent]) -> None:
        """Follow vLLM's cache."""
        for event in events:
            if isinstance(event, BlocksStored):
                self._store(event)
            elif isinstance(event, BlocksRemoved):
                for block in event.hashes:
                    self._remove(block)
            else:
                self.clear()
        for chain, (prompt, length) in tuple(self._expected.items()):
            self._name(chain, prompt, length)

    def clear(self) -> None:
        """Forget everything: it was removed, or events were lost."""
        for block in tuple(self._keys):
            self._remove(block)
        self._expected.clear()

    def cached(self, prompt: Prompt) -> int:
        """Leading tokens of `prompt` in cached blocks."""
        return self._find(prompt, len(prompt))[0]

    def note(self, prompt: Prompt, computed: int) -> None:
        """Report the named prefixes within the first `computed` tokens of `prompt`, once cached.

        A prefix with no more whole blocks than a shorter one is left out: it says nothing new.
        """
        reported = 0
        for chain, length in named_ends(prompt, computed):
            whole = length - length % self._length
            if whole > reported:
                reported = whole
                self._name(chain, prompt, whole)

    def _store(self, event: BlocksStored) -> None:
        before: Hash | Keys = event.keys if event.parent is None else event.parent
        for number, block in enumerate(event.hashes):
            start = number * self._length
            key = (before, event.tokens[start : start + self._length])
            self._blocks[key], self._keys[block] = block, key
            before = block

    def _remove(self, block: Hash) -> None:
        key = self._keys.pop(block, None)
        if key is not None:
            self._blocks.pop(key, None)
        for chain in self._names.pop(block, ()):
            del self._ends[chain]
            self.events.remove(chain)

    def _find(self, prompt: Prompt, length: int) -> tuple[int, Hash | Keys]:
        """How many of the first `length` tokens are in cached blocks, and the last of these."""
        tokens, found = prompt.tokens, 0
        last: Hash | Keys = self._root(prompt)
        while found + self._length <= length:
            block = self._blocks.get((last, tokens[found : found + self._length]))
            if block is None:
                break
            last, found = block, found + self._length
        return found, last

    def _name(self, chain: bytes, prompt: Prompt, whole: int) -> None:
        """Report a prefix with this length of whole blocks, or expect it."""
        if chain in self._ends:
            self._ends.move_to_end(chain)
            return
        found, block = self._find(prompt, whole)
        if found < whole or isinstance(block, tuple):
            self._expected[chain] = prompt, whole
            if len(self._expected) > MAX_EXPECTED:
                self._expected.popitem(last=False)
            return
        self._expected.pop(chain, None)
        self._ends[chain] = block
        self._names.setdefault(block, set()).add(chain)
        self.events.store(chain, whole)
        if len(self._ends) > MAX_PREFIXES:
            oldest, end = self._ends.popitem(last=False)
            self._names[end].discard(oldest)
            self.events.remove(oldest)

    def _root(self, prompt: Prompt) -> Keys:
        return tuple(key for key in (self._adapter_of(prompt), salt_of(prompt)) if key)


def salt_of(prompt: Prompt) -> str | None:
    """What separates the cached prefixes of a prompt's tenant from those of others.

    It counts from the first token on, so tenants share not even what is public.
    """
    private = prompt.public_tokens < len(prompt)
    return prompt.tenant if private and prompt.tenant else None
