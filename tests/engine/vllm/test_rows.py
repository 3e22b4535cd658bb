"""Sampling in vLLM's workers leaves one token possible: the one that the built-in engine takes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from plato.engine import GenerateRequest, Grammar, RequestRefusedError, SamplingParams
from plato.engine.sampling.matcher import GrammarCompiler
from plato.engine.sampling.sampler import Draw, choose, log_probabilities
from plato.engine.tokenizer_config import TokenizerConfig
from plato.engine.vllm.rows import Row, RowRequest, sample_rows, score_of
from tests.engine.helpers import ask, some_tokens

DIGITS = Grammar(lark='start: "12345"\n')
DEAD_END = Grammar(lark="start: NOTHING\nNOTHING: /[a-z]+/ & /[0-9]+/\n")
WARM = SamplingParams(
    1.0,
    seed=3,
    repetition_penalty=1.5,
    penalty_exempt=frozenset({7}),
    penalised=(5, 6),
    logit_bias=((9, 1.0),),
)


@pytest.fixture(scope="module")
def tokens(model_folder: str) -> TokenizerConfig:
    return TokenizerConfig.load(model_folder)


@pytest.fixture(scope="module")
def grammars(tokens: TokenizerConfig) -> GrammarCompiler:
    return GrammarCompiler(tokens, tokens.backend.get_vocab_size())


def row(request: GenerateRequest, output: list[int], grammars: Any = None) -> Row:
    return Row(RowRequest.of(request).pack(), output, grammars)


def logits(rows: int = 1, vocabulary: int = 50) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(rows))


def left(values: torch.Tensor) -> int:
    """The only token with a positive value, which greedy sampling takes."""
    (token,) = (values > 0).nonzero().flatten().tolist()
    assert int(values.argmax()) == token
    return int(token)


def sampled(one: Row, vocabulary: int) -> int:
    batch = logits(1, vocabulary)
    sample_rows(batch, {0: one})
    return left(batch[0])


def test_a_request_reaches_a_worker_as_it_is() -> None:
    request = ask(some_tokens(5), sampling=WARM, emitted=(1, 2), script=(3,), grammar=DIGITS)
    unpacked = RowRequest.unpack(RowRequest.of(request).pack())
    assert unpacked.sampling == WARM
    assert (unpacked.emitted, unpacked.script, unpacked.grammar) == ((1, 2), (3,), DIGITS.lark)


@pytest.mark.parametrize("sampling", [SamplingParams(), WARM])
@pytest.mark.parametrize("cut", [0, 2])
def test_the_token_left_is_that_of_the_sampler(sampling: SamplingParams, cut: int) -> None:
    output = [4, 8, 15, 16]
    request = ask(some_tokens(5), node=6, sampling=sampling, emitted=tuple(output[:cut]))
    (choice,) = choose(logits(), [Draw(sampling, 6, output)])
    batch = logits()
    sample_rows(batch, {0: row(request, output[cut:])})
    assert left(batch[0]) == choice.token


def test_rows_of_others_and_their_order_do_not_matter() -> None:
    rows = {place: row(ask((1,), node=place, sampling=WARM), []) for place in (3, 0)}
    before, after = logits(5), logits(5)
    sample_rows(after, rows)
    assert torch.equal(after[[1, 2, 4]], before[[1, 2, 4]])
    for place, one in rows.items():
        alone = before[place : place + 1].clone()
        sample_rows(alone, {0: one})
        assert torch.equal(alone[0], after[place])


def test_a_batch_without_rows_is_left_alone() -> None:
    batch = logits(3)
    sample_rows(batch, {})
    assert torch.equal(batch, logits(3))


@pytest.mark.parametrize("chosen_is_scored", [True, False])
def test_scores_come_with_the_first_token_alone(chosen_is_scored: bool) -> None:
    likely = int(logits().argmax())
    score = (likely, 3, 4) if chosen_is_scored else (3, 4)
    request = ask((1,), score=score)
    batch = logits()
    sample_rows(batch, {0: row(request, [])})
    expected = log_probabilities(logits()[0], score)
    values = [score_of(float(batch[0, token])) for token in score]
    assert values == pytest.approx(expected, abs=1e-5)
    assert left(batch[0]) == likely
    later = logits()
    sample_rows(later, {0: row(request, [9])})
    assert later[0].isfinite().sum() == 1
    assert RowRequest.of(replace(request, emitted=(9,))).score == ()


def test_an_impossible_token_is_scored_so(grammars: GrammarCompiler) -> None:
    request = ask((1,), score=(3, 4), grammar=DIGITS)
    batch = logits(1, 49152)
    sample_rows(batch, {0: row(request, [], grammars)})
    assert [score_of(float(batch[0, token])) for token in (3, 4)] == [-math.inf, -math.inf]


def test_a_script_replaces_tokens_from_where_it_is_resumed() -> None:
    request = ask((1,), script=(30, 31, 32), emitted=(30,))
    assert sampled(row(request, []), 50) == 31
    assert sampled(row(request, [31]), 50) == 32
    assert sampled(row(request, [31, 32]), 50) == int(logits().argmax())


def test_a_grammar_is_followed_from_where_it_is_resumed(
    tokens: TokenizerConfig, grammars: GrammarCompiler
) -> None:
    request = ask((1,), grammar=DIGITS)
    output: list[int] = []
    whole = row(request, output, grammars)
    while tokens.backend.decode(output) != "12345":
        assert len(output) < 5
        output.append(sampled(whole, 49152))
    for cut in range(len(output)):
        resumed = replace(request, emitted=tuple(output[:cut]))
        assert sampled(row(resumed, [], grammars), 49152) == output[cut]
        # As after a preemption, where vLLM keeps what it has decoded.
        assert sampled(row(request, output[:cut], grammars), 49152) == output[cut]


def test_after_its_end_a_grammar_forbids_nothing(
    tokens: TokenizerConfig, grammars: GrammarCompiler
) -> None:
    output = tokens.backend.encode("12345", add_special_tokens=False).ids
    free = int(logits(1, 49152).argmax())
    assert sampled(row(ask((1,), grammar=DIGITS), output, grammars), 49152) == free


@pytest.mark.parametrize(
    ("grammar", "output"), [(DEAD_END, []), (DIGITS, [100, 200]), (Grammar("start: ("), [])]
)
def test_a_grammar_that_fails_harms_no_other_row(
    grammars: GrammarCompiler, grammar: Grammar, output: list[int]
) -> None:
    """The engine refuses the request; an error in a worker would end vLLM."""
    batch = logits(2, 49152)
    sample_rows(
        batch, {0: row(ask((1,), grammar=grammar), output, grammars), 1: row(ask((1,)), [])}
    )
    left(batch[0])
    assert left(batch[1]) == int(logits(2, 49152)[1].argmax())


def test_a_dead_end_gets_a_token_that_the_engine_refuses(grammars: GrammarCompiler) -> None:
    token = sampled(row(ask((1,), grammar=DEAD_END), [], grammars), 49152)
    matcher = grammars.matcher(DEAD_END.lark, [])
    with pytest.raises(RequestRefusedError):
        matcher.consume([token])
