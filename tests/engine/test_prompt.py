"""Chained hashes name prefixes: of tokens, by segment, and by tenant where text is private."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plato.engine import Prompt, Segment, chain_hash
from plato.engine.prompt import HASH_BYTES, ROOT_HASH

PUBLIC = Segment((1, 2, 3), public=True)
tokens = st.lists(st.integers(0, 2**31 - 1), max_size=4).map(tuple)
prompts = st.lists(st.builds(Segment, tokens, st.booleans()), max_size=4).map(tuple)


def test_a_hash_depends_on_parent_tokens_and_tenant() -> None:
    base = chain_hash(ROOT_HASH, (1, 2))
    assert len(base) == HASH_BYTES
    others = {
        chain_hash(base, (1, 2)),
        chain_hash(ROOT_HASH, (2, 1)),
        chain_hash(ROOT_HASH, (1, 2), ""),
        chain_hash(ROOT_HASH, (1, 2), "a"),
    }
    assert len(others | {base}) == 5
    assert chain_hash(ROOT_HASH, [1, 2]) == base


def test_the_hash_of_a_known_prefix_never_changes() -> None:
    # Handles in the context store outlive a process: the function is part of a contract.
    assert chain_hash(ROOT_HASH, (1, 2, 3), "acme").hex() == "89b8f60ba9598778f6a5dc321ca13a1b"


def test_a_tenant_cannot_be_spelled_by_tokens() -> None:
    name = int.from_bytes(b"abcd", "little")
    assert chain_hash(ROOT_HASH, (name,), "") != chain_hash(ROOT_HASH, (), "abcd")


def test_public_segments_have_the_same_hash_for_every_tenant_and_private_ones_not() -> None:
    mine, yours = (Prompt((PUBLIC, Segment((4,)), Segment((5,))), t) for t in ("me", "you"))
    assert mine.hashes[0] == yours.hashes[0]
    assert not set(mine.hashes[1:]) & set(yours.hashes[1:])


def test_everything_behind_the_first_private_segment_is_private() -> None:
    mine, yours = (Prompt((Segment((4,)), PUBLIC), t) for t in ("me", "you"))
    assert mine.public_tokens == 0
    assert mine.hashes[1] != yours.hashes[1]
    assert Prompt((PUBLIC, PUBLIC, Segment((4,)), PUBLIC)).public_tokens == 6


def test_public_and_private_segments_of_the_same_tokens_have_other_hashes() -> None:
    assert Prompt((PUBLIC,)).hashes != Prompt((Segment(PUBLIC.tokens),)).hashes


def test_a_prompt_is_its_tokens_in_order() -> None:
    prompt = Prompt((PUBLIC, Segment(()), Segment((4, 5))))
    assert prompt.tokens == (1, 2, 3, 4, 5)
    assert len(prompt) == 5


@given(prompts, prompts, st.text(max_size=3))
def test_extending_keeps_the_hashes_so_far(
    start: tuple[Segment, ...], more: tuple[Segment, ...], tenant: str
) -> None:
    prompt = Prompt(start, tenant)
    longer = prompt.extended(*more)
    assert longer.hashes[: len(start)] == prompt.hashes
    assert longer.tokens == prompt.tokens + Prompt(more).tokens
    assert len(longer.hashes) == len(start) + len(more)
    assert longer.tenant == tenant


@given(prompts, st.integers(0, 2**31 - 1))
def test_the_same_tokens_have_other_hashes_for_another_model(segments, more) -> None:
    mine, theirs = Prompt(segments, "me", "one"), Prompt(segments, "me", "two")
    assert not {*mine.hashes} & {*theirs.hashes, *Prompt(segments, "me").hashes}
    extended = mine.extended(Segment((more,)))
    assert extended.hashes[:-1] == mine.hashes
    assert extended.hashes[-1] != theirs.extended(Segment((more,))).hashes[-1]
