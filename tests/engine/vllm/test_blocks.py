"""What vLLM's KV events say of the prefixes that it has cached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from plato.engine import KVEventBatch, Prompt, Segment
from plato.engine.vllm import blocks as module
from plato.engine.vllm.blocks import (
    BlockIndex,
    BlocksCleared,
    BlocksRemoved,
    BlocksStored,
    Keys,
    salt_of,
)
from tests.engine.helpers import some_tokens

LENGTH = 4


def prompt(*segments: Iterable[int], tenant: str = "", public: bool = False) -> Prompt:
    return Prompt(tuple(Segment(tuple(s), public) for s in segments), tenant)


def stored(
    tokens: Sequence[int], first: int = 0, parent: int | None = None, keys: Keys = ()
) -> BlocksStored:
    """The event for whole blocks of `tokens`, which are numbered from `first`."""
    count = len(tokens) // LENGTH
    hashes = tuple(range(first, first + count))
    return BlocksStored(hashes, parent, tuple(tokens[: count * LENGTH]), keys)


def chains(batch: KVEventBatch | None) -> tuple[dict[bytes, int], set[bytes]]:
    assert batch is not None
    return {each.chain: each.tokens for each in batch.stored}, set(batch.removed)


@pytest.fixture
def index() -> BlockIndex:
    return BlockIndex(LENGTH)


def test_whole_blocks_are_cached(index: BlockIndex) -> None:
    tokens = some_tokens(10)
    index.apply([stored(tokens)])
    assert index.cached(prompt(tokens)) == 8
    assert index.cached(prompt(tokens[:7])) == 4
    assert index.cached(prompt(tokens[:3])) == 0
    assert index.cached(prompt(some_tokens(10, 1))) == 0
    assert index.tokens == 8


def test_blocks_continue_others(index: BlockIndex) -> None:
    tokens = some_tokens(12)
    index.apply([stored(tokens[:4]), stored(tokens[4:], first=1, parent=0)])
    assert index.cached(prompt(tokens)) == 12
    # The same tokens elsewhere are other blocks.
    assert index.cached(prompt(tokens[4:])) == 0


def test_evicted_blocks_are_not_cached(index: BlockIndex) -> None:
    tokens = some_tokens(12)
    index.apply([stored(tokens), BlocksRemoved((2,))])
    assert index.cached(prompt(tokens)) == 8
    index.apply([BlocksRemoved((1, 0, 99))])
    assert (index.cached(prompt(tokens)), index.tokens) == (0, 0)


def test_named_prefixes_are_reported_once_their_blocks_are(index: BlockIndex) -> None:
    whole = prompt(some_tokens(6), some_tokens(5, 1))
    index.note(whole, len(whole))
    assert index.events.take() is None
    index.apply([stored(whole.tokens)])
    assert chains(index.events.take()) == ({whole.hashes[0]: 4, whole.hashes[1]: 8}, set())
    index.note(whole, len(whole))
    assert index.events.take() is None


def test_a_name_that_says_nothing_new_is_left_out(index: BlockIndex) -> None:
    whole = prompt(some_tokens(2), some_tokens(3, 1), some_tokens(2, 2))
    index.apply([stored(whole.tokens)])
    index.note(whole, len(whole))
    assert chains(index.events.take()) == ({whole.hashes[1]: 4}, set())


def test_names_end_with_the_last_of_their_blocks(index: BlockIndex) -> None:
    shared = some_tokens(8)
    left, right = (prompt(shared, some_tokens(4, seed)) for seed in (1, 2))
    index.apply([stored(left.tokens), stored(right.tokens[8:], first=3, parent=1)])
    index.note(left, 12)
    index.note(right, 12)
    index.events.take()
    index.apply([BlocksRemoved((2,))])
    assert chains(index.events.take()) == ({}, {left.hashes[1]})
    index.apply([BlocksCleared()])
    assert chains(index.events.take()) == ({}, {left.hashes[0], right.hashes[1]})
    assert index.cached(right) == 0


def test_the_last_sampled_token_has_no_kv(index: BlockIndex) -> None:
    whole = prompt(some_tokens(8))
    index.apply([stored(whole.tokens)])
    index.note(whole, 7)
    assert chains(index.events.take()) == ({whole.hashes[0]: 4}, set())


def test_tenants_and_the_adapter_separate_equal_tokens() -> None:
    index = BlockIndex(LENGTH, lambda asked: "adapter" if asked.fingerprint == "tuned" else None)
    tokens = some_tokens(8)
    index.apply([stored(tokens, keys=("adapter", "one"))])

    def cached(fingerprint: str = "tuned", **fields: Any) -> int:
        return index.cached(replace(prompt(tokens, **fields), fingerprint=fingerprint))

    assert cached(tenant="one") == 8
    assert cached(tenant="two") == 0
    assert cached() == 0
    assert cached(tenant="one", public=True) == 0
    assert cached("base", tenant="one") == 0


def test_only_what_is_private_is_salted() -> None:
    assert salt_of(prompt((1,), tenant="one")) == "one"
    assert salt_of(prompt((1,), tenant="one", public=True)) is None
    assert salt_of(prompt((1,))) is None


def test_names_are_bounded(index: BlockIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PREFIXES", 2)
    monkeypatch.setattr(module, "MAX_EXPECTED", 2)
    prompts = [prompt(some_tokens(4, seed)) for seed in range(3)]
    for number, each in enumerate(prompts):
        index.apply([stored(each.tokens, first=number)])
        index.note(each, 4)
    assert {each.chain for each in index.events.snapshot().stored} == {
        each.hashes[0] for each in prompts[1:]
    }
    later = [prompt(some_tokens(4, seed)) for seed in range(3, 6)]
    for each in later:
        index.note(each, 4)
    index.apply([stored(each.tokens, first=10 + n) for n, each in enumerate(later)])
    names = {each.chain for each in index.events.snapshot().stored}
    assert names == {each.hashes[0] for each in later[1:]}
