"""Output under a grammar matches it, and what the grammar forces costs no step."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from plato.engine import (
    FinishReason,
    GenerateRequest,
    RequestRefusedError,
    SamplingParams,
    StopConditions,
)
from plato.engine.sampling.matcher import GrammarCompiler, Mask, Matcher
from plato.engine.tokenizer_config import TokenizerConfig
from plato.engine.torch import TorchEngine, TorchEngineConfig
from plato.engine.torch.core import EngineCore
from plato.engine.torch.model import LanguageModel
from plato.planning.grammar import outline_grammar
from plato.planning.titles import title_of_words
from tests.engine.helpers import Stream, ask, collect, drain, run_alone, run_together, some_tokens

PLAN = r"""
start: line{1,3} "[END]"
line: /[1-3]/ " | " /[a-z ]{3,12}/ " -> the end of the line\n"
"""
PLAN_PATTERN = r"([1-3] \| [a-z ]{3,12} -> the end of the line\n){1,3}\[END\]"
DEAD_END = "start: NOTHING\nNOTHING: /[a-z]+/ & /[0-9]+/\n"
"""Well-formed, but no text matches it."""


def planned(seed: int = 0, **fields: Any) -> GenerateRequest:
    sampling = SamplingParams(temperature=1.0, seed=seed)
    defaults = {"grammar": PLAN, "max_tokens": 200, "sampling": sampling, "stop": StopConditions()}
    return ask(some_tokens(20), **{**defaults, **fields})


@pytest.fixture(scope="module")
def core(tiny: LanguageModel) -> EngineCore:
    """One for all: the view of the tokenizer that grammars need takes a second to build."""
    budget = 2000 * tiny.kv_bytes_per_token
    return EngineCore(tiny, TorchEngineConfig("unused", kv_budget_bytes=budget), "epoch")


def test_output_always_matches(core: EngineCore) -> None:
    greedy = planned(sampling=SamplingParams())
    for stream in run_together(core, [greedy, *(planned(seed) for seed in range(7))]):
        assert re.fullmatch(PLAN_PATTERN, stream.text)
        assert stream.finish is FinishReason.STOP


def test_forced_tokens_take_no_step(core: EngineCore) -> None:
    stream = run_alone(core, planned())
    # A line's end alone is several tokens that the grammar leaves no choice about.
    assert stream.last.steps <= len(stream.tokens) - 4 * stream.text.count("\n")
    assert len(stream.chunks) == stream.last.steps
    assert max(len(chunk.tokens) for chunk in stream.chunks) > 4


def test_forced_tokens_change_nothing_for_what_follows(core: EngineCore) -> None:
    # The KV of forced tokens must be that of tokens decoded one by one: a request that brings
    # them as emitted goes on the same way, and so does one with a cold cache.
    request = planned(3)
    whole = run_alone(core, request)
    position, text = 0, ""
    for chunk in whole.chunks[:-1]:
        position, text = position + len(chunk.tokens), text + chunk.text
        rest = run_alone(core, replace(request, emitted=whole.tokens[:position]))
        assert whole.tokens[:position] + rest.tokens == whole.tokens
        assert text + rest.text == whole.text


def test_a_cut_among_forced_tokens_still_matches(core: EngineCore) -> None:
    request = planned(3)
    whole = run_alone(core, request)
    for cut in range(1, len(whole.tokens), 3):
        rest = run_alone(core, replace(request, emitted=whole.tokens[:cut]))
        tokens = whole.tokens[:cut] + rest.tokens
        text = core_text(core, tokens)
        assert re.fullmatch(PLAN_PATTERN, text)


def test_a_budget_that_ends_in_the_grammar_is_a_length_finish(core: EngineCore) -> None:
    request = planned(grammar='start: "one two three four five six"\n')
    whole = run_alone(core, request)
    assert whole.text == "one two three four five six"
    assert whole.finish is FinishReason.STOP
    for budget in range(1, len(whole.tokens)):
        cut = run_alone(core, replace(request, max_tokens=budget))
        assert cut.tokens == whole.tokens[:budget]
        assert cut.finish is FinishReason.LENGTH


def test_the_end_of_turn_comes_only_where_the_grammar_allows_it(core: EngineCore) -> None:
    eager = SamplingParams(logit_bias=((2, 1e6),))
    stream = run_alone(core, planned(grammar='start: "yes" | "no"\n', sampling=eager))
    assert stream.text in ("yes", "no")
    empty = run_alone(core, planned(grammar='start: "" | "no"\n', sampling=eager))
    assert (empty.text, empty.tokens) == ("", (2,))


def test_scores_of_the_first_token_are_of_what_the_grammar_allows(core: EngineCore) -> None:
    tokens = tuple(core._model.tokenizer.backend.encode(text).ids[0] for text in "yna")
    stream = run_alone(core, planned(grammar='start: "yes" | "no"\n', score=tokens))
    yes, no, other = stream.chunks[0].scores
    assert -math.inf < min(yes, no)
    assert other == -math.inf


@pytest.fixture(scope="module")
def compiler(model_folder: str) -> GrammarCompiler:
    """For a model whose vocabulary is padded past what the tokenizer knows."""
    tokenizer = TokenizerConfig.load(model_folder)
    return GrammarCompiler(tokenizer, tokenizer.backend.get_vocab_size() + 64)


class TestMasks:
    """Of the real grammar of outlines with the real tokenizer."""

    OUTLINE = "1. **Solar power and its cost**:\n2. **Café naïve 東京**:\n3. **Sum 3**:\n"
    GRAMMAR = outline_grammar(3, title_of_words(8)).lark

    @pytest.fixture
    def matcher(self, compiler: GrammarCompiler) -> Matcher:
        return compiler.matcher(self.GRAMMAR, ())

    def test_say_the_same_of_one_token_as_of_all(self, matcher: Matcher, tokenizer: Any) -> None:
        pick = random.Random(0)
        special = tokenizer.all_special_ids
        rest = tokenizer(self.OUTLINE, add_special_tokens=False).input_ids
        for token in rest:
            mask = matcher.mask()
            bits = allowed(mask)
            assert bits[token]
            few = pick.choices(bits.nonzero()[0], k=20)
            for other in (token, *special, *few, *pick.choices(range(len(tokenizer)), k=200)):
                assert mask.allows(int(other)) == bits[other], tokenizer.decode([other])
            matcher.consume([token])
        assert matcher.complete

    def test_asking_changes_nothing(self, compiler: GrammarCompiler, tokenizer: Any) -> None:
        asked, silent = (compiler.matcher(self.GRAMMAR, ()) for _ in range(2))
        for token in tokenizer(self.OUTLINE, add_special_tokens=False).input_ids:
            for other in (token, 0, 100, 20_000):
                asked.mask().allows(other)
            asked.consume([token])
            silent.consume([token])
            assert asked.mask().bits() == silent.mask().bits()

    def test_allow_no_token_that_the_tokenizer_lacks(
        self, matcher: Matcher, tokenizer: Any
    ) -> None:
        missing = range(len(tokenizer), len(tokenizer) + 64)
        mask = matcher.mask()
        assert not any(mask.allows(token) for token in missing)
        assert not allowed(mask)[len(tokenizer) :].any()

    def test_of_a_dead_end_refuse_every_token_and_name_the_error(
        self, compiler: GrammarCompiler
    ) -> None:
        mask = compiler.matcher(DEAD_END, ()).mask()
        assert not any(mask.allows(token) for token in range(100, 1000))
        with pytest.raises(RequestRefusedError, match="the grammar cannot be followed"):
            mask.bits()

    def test_are_not_worked_out_while_the_model_chooses_what_is_allowed(
        self, core: EngineCore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Mask] = []
        monkeypatch.setattr(Mask, "bits", asked.append)
        tokens = core._model.tokenizer.backend.encode("a").ids
        greedy = SamplingParams(logit_bias=((tokens[0], 1e6),))
        request = planned(sampling=greedy, grammar="start: /a{1,60}b/\n", max_tokens=30)
        assert set(run_alone(core, request).text) == {"a"}
        assert not asked


class TestWrongGrammars:
    @pytest.mark.parametrize("grammar", ["start: nothing\n", "no grammar at all", DEAD_END])
    async def test_are_refused_and_others_go_on(self, engine: TorchEngine, grammar: str) -> None:
        good = collect(engine, ask(some_tokens(5), max_tokens=30))
        with pytest.raises(RequestRefusedError, match="grammar"):
            await collect(engine, planned(grammar=grammar))
        assert len((await good).tokens) == 30
        assert (await collect(engine, planned(1))).finish is FinishReason.STOP

    def test_an_emitted_output_that_does_not_match_is_refused(self, core: EngineCore) -> None:
        with pytest.raises(RequestRefusedError, match="grammar"):
            core.add(planned(emitted=some_tokens(3)), Stream())
        assert not core.has_work

    def test_a_grammar_that_leads_nowhere_ends_its_own_sequence_only(
        self, core: EngineCore
    ) -> None:
        bad, good = Stream(), Stream()
        core.add(planned(grammar=DEAD_END), bad)
        core.add(ask(some_tokens(5)), good)
        drain(core)
        assert isinstance(bad.error, RequestRefusedError)
        assert not bad.chunks
        assert good.finish is FinishReason.LENGTH


def allowed(mask: Mask) -> np.ndarray:
    """One boolean a token."""
    return np.unpackbits(np.frombuffer(mask.bits(), np.uint8), bitorder="little").astype(bool)


def core_text(core: EngineCore, tokens: tuple[int, ...]) -> str:
    text: str = core._model.tokenizer.backend.decode(tokens, skip_special_tokens=True)
    return text
