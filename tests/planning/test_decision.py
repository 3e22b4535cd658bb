from __future__ import annotations

import math

import pytest

from plato.planning.decision import SplitDecision
from plato.planning.grammar import DEPENDENCIES_FIRST, WITH_LENGTH
from plato.planning.vocabulary import structure_tokens
from plato.prompting import Tokenizer
from plato.runs import Length


@pytest.mark.parametrize("threshold", [0.0, 0.004, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("probability", [0.001, 0.1, 0.6, 0.95])
def test_the_biased_choice_is_one_exactly_above_the_threshold(
    tokenizer: Tokenizer, threshold: float, probability: float
) -> None:
    decision = SplitDecision(tokenizer, threshold)
    one, split = tokenizer.text("[ONE]")[0], tokenizer.text("1 |")[0]
    first = {one: math.log(probability), split: math.log(1 - probability)}

    bias = dict(decision.bias)
    biased = {token: value + bias.get(token, 0.0) for token, value in first.items()}

    assert decision.probability(first) == pytest.approx(probability)
    assert (max(biased, key=biased.__getitem__) == one) == (probability > threshold)


def test_an_alternative_that_is_not_reported_is_impossible(tokenizer: Tokenizer) -> None:
    decision = SplitDecision(tokenizer, 0.5)
    assert decision.probability({tokenizer.text("[ONE]")[0]: -0.1}) == 1
    assert decision.probability({tokenizer.text("1 |")[0]: -0.1}) == 0
    assert decision.probability({}) == 0


def test_structure_is_exempt_from_the_penalty_and_words_are_not(tokenizer: Tokenizer) -> None:
    structure = structure_tokens(tokenizer, DEPENDENCIES_FIRST)
    assert structure.issuperset(tokenizer.text("1 | - | 2 | 1,2 | 30\n[END]"))
    assert structure.isdisjoint(tokenizer.text(" Which one to choose"))
    assert structure.isdisjoint(tokenizer.special)
    lengths = {token for length in Length for token in tokenizer.text(f" {length}")}
    assert structure_tokens(tokenizer, WITH_LENGTH) == structure | lengths
