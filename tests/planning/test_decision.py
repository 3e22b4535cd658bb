"""Decisions from log probabilities that are made up, with a real tokenizer."""

from __future__ import annotations

import math

import pytest

from plato.errors import ModelError
from plato.models.calibration import Calibration
from plato.planning.decision import (
    LETTERS,
    DependencyDecision,
    SplitDecision,
    dependency_answer,
    dependency_line,
)
from plato.planning.grammar import outline_line
from plato.planning.vocabulary import structure_tokens
from plato.prompting import Tokenizer

IMPOSSIBLE = -math.inf


@pytest.fixture(scope="module")
def needs(tokenizer: Tokenizer) -> DependencyDecision:
    return DependencyDecision(tokenizer, Calibration(dependency_threshold=0.0))


class TestSplit:
    @pytest.mark.parametrize("threshold", [0.0, 0.004, 0.5, 0.9, 1.0])
    @pytest.mark.parametrize("probability", [0.001, 0.1, 0.6, 0.95])
    def test_is_up_to_the_threshold(
        self, tokenizer: Tokenizer, threshold: float, probability: float
    ) -> None:
        decision = SplitDecision(tokenizer, Calibration(threshold))
        # Other tokens have the rest.
        scores = [math.log(probability / 3), math.log((1 - probability) / 3)]
        assert decision.probability(scores) == pytest.approx(probability)
        assert decision.splits(decision.probability(scores)) == (probability <= threshold)

    def test_is_never_at_threshold_0_and_always_at_1(self, tokenizer: Tokenizer) -> None:
        assert not SplitDecision(tokenizer, Calibration(0.0)).splits(0.0)
        assert SplitDecision(tokenizer, Calibration(1.0)).splits(1.0)

    def test_is_between_the_first_tokens_of_one_and_a_plan(self, tokenizer: Tokenizer) -> None:
        one, split = SplitDecision(tokenizer, Calibration(0.5)).candidates
        assert (tokenizer.decode((one,)), tokenizer.decode((split,))) == ("[", "1")

    @pytest.mark.parametrize(
        ("scores", "probability"),
        [
            ((-0.1, IMPOSSIBLE), 1.0),
            ((IMPOSSIBLE, -0.1), 0.0),
            ((IMPOSSIBLE, IMPOSSIBLE), 0.0),
            ((-2000.0, -0.1), 0.0),
        ],
    )
    def test_knows_impossible_tokens(
        self, tokenizer: Tokenizer, scores: tuple[float, float], probability: float
    ) -> None:
        assert SplitDecision(tokenizer, Calibration(0.5)).probability(scores) == pytest.approx(
            probability
        )

    def test_is_impossible_for_a_tokenizer_that_begins_both_alike(
        self, tokenizer: Tokenizer
    ) -> None:
        class Prefixing:
            def text(self, text: str) -> tuple[int, ...]:
                return (7, *tokenizer.text(text))

        with pytest.raises(ModelError, match=r"the same first token.*use another model"):
            SplitDecision(Prefixing(), Calibration(0.5))  # type: ignore[arg-type]


class TestDependencies:
    def test_candidates_are_nothing_and_the_earlier_parts(
        self, tokenizer: Tokenizer, needs: DependencyDecision
    ) -> None:
        texts = [tokenizer.decode((token,)) for token in needs.candidates(3)]
        assert texts == [" nothing", " A", " B", " C"]
        assert needs.parts == 26
        assert len(set(needs.candidates(26))) == 27

    def test_log_odds_are_of_nothing_against_any_part(self, needs: DependencyDecision) -> None:
        scores = [math.log(chance) for chance in (0.3, 0.1, 0.2)]
        assert needs.log_odds(scores) == pytest.approx(0.0)
        assert needs.log_odds([math.log(0.6), *scores[1:]]) == pytest.approx(math.log(2))
        assert needs.log_odds([-1.0, IMPOSSIBLE]) == math.inf

    def test_nothing_is_needed_above_the_threshold(self, tokenizer: Tokenizer) -> None:
        scores = (-1.0, -1.5)
        for threshold, chosen in ((0.4, ()), (0.5, (1,)), (0.6, (1,))):
            assert (
                DependencyDecision(tokenizer, Calibration(dependency_threshold=threshold)).choose(
                    scores
                )
                == chosen
            )

    @pytest.mark.parametrize(
        ("scores", "chosen"),
        [
            # Above nothing: the most likely one alone, or with those that are nearly as likely.
            ((-9.0, -1.0, -6.0, -6.0), (1,)),
            ((-9.0, -1.0, -2.4, -6.0), (1, 2)),
            ((-9.0, -1.0, -2.6, -6.0), (1,)),
            # The part directly before has a bonus.
            ((-9.0, -1.0, -6.0, -3.4), (1, 3)),
            ((-9.0, -1.0, -1.8, -0.2), (3,)),
            ((-9.0, IMPOSSIBLE, IMPOSSIBLE, -6.0), (3,)),
        ],
    )
    def test_the_most_likely_parts_are_needed(
        self, needs: DependencyDecision, scores: tuple[float, ...], chosen: tuple[int, ...]
    ) -> None:
        assert needs.choose(scores) == chosen

    def test_lines_name_parts_by_letters(self) -> None:
        assert dependency_line(3, "Which one") == "C: Which one. Uses"
        assert dependency_answer(()) == " nothing\n"
        assert dependency_answer((1, 2)) == " A and B\n"
        # Parts beyond the last letter cannot be named.
        assert dependency_answer((26, 27)) == f" {LETTERS[-1]}\n"


def test_only_differences_between_scores_count(
    tokenizer: Tokenizer, needs: DependencyDecision
) -> None:
    """Servers may report log probabilities among the named tokens alone, or raw logits."""
    split = SplitDecision(tokenizer, Calibration(0.5))
    for shift in (-30.0, 12.5):
        scores = [score + shift for score in (-4.0, -1.0, -2.5)]
        assert needs.choose(scores) == needs.choose((-4.0, -1.0, -2.5)) == (1, 2)
        assert split.probability(scores[:2]) == pytest.approx(split.probability((-4.0, -1.0)))


def test_structure_is_exempt_from_the_penalty_and_words_are_not(tokenizer: Tokenizer) -> None:
    structure = structure_tokens(tokenizer)
    title = tokenizer.text("Which one to choose")
    for number in (1, 9, 10, 32):
        line = tokenizer.text(outline_line(number, "Which one to choose"))
        assert structure.isdisjoint(title)
        assert structure.issuperset(token for token in line if token not in title)
    assert structure.isdisjoint(tokenizer.special)
