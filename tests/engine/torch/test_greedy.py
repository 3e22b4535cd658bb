"""Greedy decoding in float32 equals `transformers.generate`, whatever happens around it."""

from __future__ import annotations

from typing import Any

import pytest

from plato.engine import GenerateRequest, Segment, StopConditions
from plato.engine.torch.model import LanguageModel
from tests.engine.conftest import MakeCore
from tests.engine.helpers import (
    Stream,
    ask,
    assert_greedy,
    drain,
    generate,
    run_alone,
    run_together,
    some_tokens,
)

QUESTIONS = (
    "How do I bake bread?",
    "Name three colours.",
    "Why is the sky blue?",
    "Tell me about Iceland.",
    "How does a bicycle stay upright?",
    "What is a prime number?",
    "Explain rain.",
    "Who was Newton?",
)
BUDGET = 16
FORCING = 'start: ("yes" | "no") " and nothing else that matters in the world, " /[a-z]+/\n'


@pytest.fixture(scope="module")
def chats(tokenizer: Any) -> list[tuple[int, ...]]:
    return [
        tuple(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question}],
                add_generation_prompt=True,
                return_dict=False,
            )
        )
        for question in QUESTIONS
    ]


def real(prompt: tuple[int, ...], **fields: Any) -> GenerateRequest:
    return ask(prompt, max_tokens=BUDGET, stop=StopConditions(), **fields)


@pytest.mark.slow
class TestRealModel:
    def test_alone(
        self,
        small: LanguageModel,
        small_reference: Any,
        make_core: MakeCore,
        chats: list[tuple[int, ...]],
        tokenizer: Any,
    ) -> None:
        stream = run_alone(make_core(small), real(chats[2]))
        expected = generate(small_reference, chats[2], BUDGET)
        assert_greedy(small_reference, chats[2], stream.tokens, BUDGET)
        assert stream.tokens == expected
        assert stream.text == tokenizer.decode(expected, skip_special_tokens=True)

    def test_eight_at_once_share_their_beginning(
        self,
        small: LanguageModel,
        small_reference: Any,
        make_core: MakeCore,
        chats: list[tuple[int, ...]],
    ) -> None:
        # The chat template's system prompt is longer than a chunk and common to all.
        core = make_core(small, prefill_chunk=16)
        streams = run_together(core, [real(chat, node=i) for i, chat in enumerate(chats)])
        for chat, stream in zip(chats, streams, strict=True):
            assert_greedy(small_reference, chat, stream.tokens, BUDGET)
        assert core.cached_tokens >= 7 * 16

    def test_after_eviction_and_continued_elsewhere(
        self,
        small: LanguageModel,
        small_reference: Any,
        make_core: MakeCore,
        chats: list[tuple[int, ...]],
    ) -> None:
        core = make_core(small, kv_tokens=max(map(len, chats)) + BUDGET)
        whole = run_alone(core, real(chats[0])).tokens
        run_alone(core, real(chats[4]))
        again = run_alone(core, real(chats[0], emitted=whole[:9]))
        assert again.chunks[0].offset == 9
        assert_greedy(small_reference, chats[0], whole[:9] + again.tokens, BUDGET)


@pytest.mark.parametrize("prefill_chunk", [1, 7, 64, 256])
def test_prompts_longer_than_a_chunk(
    make_core: MakeCore, tiny_reference: Any, prefill_chunk: int
) -> None:
    prompts = [some_tokens(length, length) for length in (90, 1, 33, 65)]
    core = make_core(prefill_chunk=prefill_chunk)
    for prompt, stream in zip(prompts, run_together(core, [ask(p) for p in prompts]), strict=True):
        assert_greedy(tiny_reference, prompt, stream.tokens)


def test_a_chunk_bounds_the_prompt_tokens_of_a_step(
    make_core: MakeCore, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = count_computed(tiny, monkeypatch)
    run_together(make_core(prefill_chunk=32), [ask(some_tokens(100, i)) for i in range(3)])
    # Every sequence may add the one token it decodes from.
    assert max(widths) <= 32 + 3


def test_decoding_goes_on_next_to_prefill(make_core: MakeCore, tiny_reference: Any) -> None:
    core = make_core(prefill_chunk=16)
    early, late = Stream(), Stream()
    core.add(ask(first := some_tokens(5), max_tokens=30), early)
    for _ in range(3):
        core.step()
    core.add(ask(second := some_tokens(120, 1)), late)
    before = len(early.tokens)
    for _ in range(5):
        core.step()
    assert len(early.tokens) == before + 5
    assert not late.tokens
    drain(core)
    assert_greedy(tiny_reference, first, early.tokens)
    assert_greedy(tiny_reference, second, late.tokens)


def test_forced_tokens_do_not_wait_behind_a_long_prompt(make_core: MakeCore) -> None:
    core = make_core(prefill_chunk=16)
    forced, long = Stream(), Stream()
    core.add(ask(some_tokens(5), max_tokens=60, grammar=FORCING), forced)
    core.step()
    before = len(forced.tokens)
    assert before > 5, "what the grammar forces comes with the first token"
    core.add(ask(some_tokens(300, 1), priority=1), long)
    core.step()
    assert forced.last.steps == 2
    assert len(forced.tokens) > before
    drain(core)


def test_a_tiny_budget_evicts_and_stays_right(make_core: MakeCore, tiny_reference: Any) -> None:
    core = make_core(kv_tokens=60)
    shared = some_tokens(20)
    for i in range(12):
        prompt = (*(shared if i % 2 else ()), *some_tokens(20, i))
        stream = run_alone(core, ask(prompt))
        assert_greedy(tiny_reference, prompt, stream.tokens)
    assert core.pool.capacity == 60


def test_continued_at_every_cut(make_core: MakeCore) -> None:
    prompt = some_tokens(40)
    whole = run_alone(make_core(), ask(prompt, max_tokens=10))
    for cut in range(1, 10):
        request = ask(prompt, max_tokens=10, emitted=whole.tokens[:cut], attempt=1)
        stream = run_alone(make_core(), request)
        assert whole.tokens[:cut] + stream.tokens == whole.tokens
        assert stream.chunks[0].offset == cut
        assert {chunk.attempt for chunk in stream.chunks} == {1}


def test_offsets_follow_each_other(make_core: MakeCore) -> None:
    stream = run_alone(make_core(), ask(some_tokens(5)))
    position = 0
    for chunk in stream.chunks:
        assert chunk.offset == position
        position += len(chunk.tokens)
    assert position == 8


def test_a_prompt_of_segments_equals_the_same_tokens_in_one(make_core: MakeCore) -> None:
    tokens = some_tokens(50)
    parts = (Segment(tokens[:10], public=True), tokens[10:11], tokens[11:])
    assert run_alone(make_core(), ask(*parts)).tokens == run_alone(make_core(), ask(tokens)).tokens


def count_computed(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects how many tokens each step computes."""
    widths: list[int] = []
    forward = model.forward

    def counting(pool: Any, tokens: list[int], *args: Any) -> Any:
        widths.append(len(tokens))
        return forward(pool, tokens, *args)

    monkeypatch.setattr(model, "forward", counting)
    return widths
