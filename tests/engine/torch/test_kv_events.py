"""KV events add up to the prefixes that are stored."""

from __future__ import annotations

import random

import pytest

from plato.engine import GenerateRequest, KVEventBatch, Prompt, Segment
from plato.engine.torch.core import EngineCore
from tests.engine.conftest import MakeCore
from tests.engine.helpers import ask, run_together, some_tokens


def segments(*lengths: int, seed: int = 0) -> Prompt:
    return Prompt(
        tuple(Segment(some_tokens(length, seed + at)) for at, length in enumerate(lengths)), "acme"
    )


def request(prompt: Prompt, max_tokens: int) -> GenerateRequest:
    return ask(*prompt.segments, tenant=prompt.tenant, max_tokens=max_tokens)


@pytest.fixture
def core(make_core: MakeCore) -> EngineCore:
    return make_core()


def take(core: EngineCore) -> KVEventBatch:
    batch = core.tree.kv_events.take()
    assert batch is not None
    return batch


def lengths(batch: KVEventBatch) -> dict[bytes, int]:
    return {prefix.chain: prefix.tokens for prefix in batch.stored}


def test_a_prompts_prefixes_are_stored_and_then_its_output_too(
    core: EngineCore,
) -> None:
    prompt = segments(20, 10, 5)
    (stream,) = run_together(core, [request(prompt, max_tokens=6)])
    batch = take(core)
    whole = prompt.extended(Segment(tuple(stream.tokens)))
    # The last token that was sampled has no KV; the prompt's own last one has, by now.
    one, two, three, four = whole.hashes
    assert lengths(batch) == {one: 20, two: 30, three: 34, four: 40}
    assert (batch.number, batch.removed, batch.snapshot) == (1, (), False)
    assert core.tree.kv_events.take() is None
    assert lengths(core.tree.kv_events.snapshot()) == lengths(batch)


def test_what_is_stored_already_is_no_event(core: EngineCore) -> None:
    prompt = segments(20, 10)
    run_together(core, [request(prompt, max_tokens=2)])
    before = lengths(take(core))
    run_together(core, [request(prompt.extended(Segment((7, 8, 9))), max_tokens=2)])
    assert not before.keys() & lengths(take(core)).keys()


def test_another_tenants_equal_prompt_has_names_of_its_own(core: EngineCore) -> None:
    prompt = segments(20)
    run_together(core, [request(prompt, max_tokens=2)])
    run_together(core, [request(Prompt(prompt.segments, "other"), max_tokens=2)])
    assert len(take(core).stored) == 4


def test_an_eviction_is_an_event_and_what_stays_is_not(make_core: MakeCore) -> None:
    core = make_core(kv_tokens=100)
    old, new = segments(30, 30), segments(40, 30, seed=50)
    run_together(core, [request(old, max_tokens=2)])
    before = lengths(take(core))
    run_together(core, [request(new, max_tokens=2)])
    batch = take(core)
    first, second = old.hashes
    # Leaves go from their ends: of the first segment a piece may be there, but not all of it.
    assert second in batch.removed
    stored = lengths(core.tree.kv_events.snapshot())
    for chain, prefix in ((first, Prompt(old.segments[:1], "acme")), (second, old)):
        assert (chain in stored) == (core.cached_prefix(prefix) >= before[chain])


@pytest.mark.slow
def test_after_any_history_the_batches_add_up_to_the_snapshot(make_core: MakeCore) -> None:
    core = make_core(kv_tokens=220)
    chance = random.Random(0)
    known: dict[bytes, int] = {}
    prompts: dict[bytes, Prompt] = {}
    for step in range(60):
        asked = [
            segments(*chance.choices((5, 20, 40), k=chance.randint(1, 3)), seed=chance.randrange(4))
            for _ in range(chance.randint(1, 3))
        ]
        for prompt in asked:
            for at, chain in enumerate(prompt.hashes, start=1):
                prompts[chain] = Prompt(prompt.segments[:at], "acme")
        run_together(core, [request(prompt, max_tokens=chance.randint(1, 9)) for prompt in asked])
        batch = core.tree.kv_events.take()
        if batch is not None:
            known |= lengths(batch)
            for chain in batch.removed:
                del known[chain]
        assert known == lengths(core.tree.kv_events.snapshot()), step
        for chain, tokens in known.items():
            if chain in prompts:
                assert core.cached_prefix(prompts[chain]) >= tokens
        core.check_integrity()
