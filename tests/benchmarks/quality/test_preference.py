"""Net win and its statistics, against values that are known otherwise."""

from __future__ import annotations

import random
from math import exp, log, tanh

import numpy as np
import pytest

from benchmarks.common.rows import InputError
from benchmarks.quality.pairs import Key, Verdict
from benchmarks.quality.preference import Judged, fit_logistic, length_controlled, report
from tests.benchmarks.quality.examples import key


def judged(
    question: str, outcome: int, category: str = "generic", longer_by: int = 0
) -> tuple[list[Key], list[Verdict]]:
    """One question, judged the same in both orders."""
    keys = [key(question, side, category, 100 + longer_by, 100) for side in (1, 2)]
    forms = {1: ("1>2", "2>1"), 0: ("1=2", "1=2"), -1: ("2>>1", "1>>2")}[outcome]
    return keys, [
        Verdict(one.pair, form)  # type: ignore[arg-type]
        for one, form in zip(keys, forms, strict=True)
    ]


def test_net_win_is_wins_less_losses_over_judged_questions() -> None:
    keys, verdicts = [], []
    for number, outcome in enumerate([1] * 5 + [-1] * 2 + [0] * 2):
        category = "writing" if number < 5 else "math"
        of_one, on_one = judged(str(number), outcome, category)
        keys += of_one
        verdicts += on_one
    keys += [key("unfair", 1, "math"), key("unfair", 2, "math"), key("late", 1), key("late", 2)]
    verdicts += [Verdict("unfair-1", "1>2"), Verdict("unfair-2", "1>2"), Verdict("late-1", "1>2")]
    verdicts.append(Verdict("late-2", None, "no reply within the deadline"))
    found = report(keys, [verdicts])
    counts = {name: found[name] for name in ("wins", "losses", "ties", "inconsistent", "unjudged")}
    assert counts == {"wins": 5, "losses": 2, "ties": 2, "inconsistent": 1, "unjudged": 1}
    assert (found["questions"], found["judged"]) == (11, 10)
    assert found["net_win"] == pytest.approx(0.3)
    low, high = found["net_win_interval"]
    assert -0.4 < low < 0.3 < high < 0.9
    # 2 * (1 + 7 + 21) / 128
    assert found["p_value"] == pytest.approx(0.453125)
    categories = found["by_category"]
    assert categories["writing"]["net_win"] == 1.0
    assert categories["writing"]["p_value"] == pytest.approx(2 / 32)
    assert categories["writing"]["p_value_holm"] == pytest.approx(2 * 2 / 32)
    assert categories["math"]["net_win"] == pytest.approx(-2 / 5)
    assert categories["math"]["p_value_holm"] == 0.5
    assert found["mean_words"] == pytest.approx((9 * 100 + 2 * 10) / 11)


def test_several_judges_are_averaged_by_question() -> None:
    keys, wins = judged("rain", 1)
    _, losses = judged("rain", -1)
    found = report(keys, [wins, wins, losses, []])
    assert found["net_win"] == pytest.approx(1 / 3)
    counts = [found[name] for name in ("wins", "losses", "unjudged", "judged")]
    assert counts == [2, 1, 1, 1]


def test_without_a_verdict_in_both_orders_there_is_no_report() -> None:
    keys, verdicts = judged("rain", 1)
    with pytest.raises(InputError, match="both orders"):
        report(keys, [verdicts[:1]])


def scores(wins: int, losses: int, longer_by: int) -> list[Judged]:
    return [Judged("", score, longer_by) for score in [1.0] * wins + [-1.0] * losses]


def test_with_two_lengths_the_controlled_net_win_has_a_closed_form() -> None:
    # Longer by 50 it wins 80 of 100, shorter by 50 it wins 40 of 100. The model has a free
    # parameter for each: a is the mean of their log odds.
    found = length_controlled(scores(80, 20, 50) + scores(40, 60, -50))
    a = (log(0.8 / 0.2) + log(0.4 / 0.6)) / 2
    assert found == pytest.approx(2 / (1 + exp(-a)) - 1, abs=2e-3)


def test_equal_lengths_leave_the_net_win_as_it_is() -> None:
    assert length_controlled(scores(30, 10, 0)) == pytest.approx(0.5, abs=1e-3)


def test_length_control_is_fair_to_both_sides() -> None:
    rows = [*scores(9, 3, 40), *scores(2, 5, -10), *scores(1, 1, 90)]
    swapped = [Judged("", -one.score, -one.longer_by) for one in rows]
    assert length_controlled(rows) == pytest.approx(-length_controlled(swapped))


def test_wins_that_length_explains_are_not_net_wins() -> None:
    chance = random.Random(0)
    rows = []
    for _ in range(2000):
        longer_by = round(chance.gauss(60, 100))
        wins = chance.random() < 1 / (1 + exp(-2 * tanh(longer_by / 100)))
        rows.append(Judged("", 1.0 if wins else -1.0, longer_by))
    raw = sum(one.score for one in rows) / len(rows)
    assert raw > 0.25
    assert abs(length_controlled(rows)) < 0.1


def test_a_side_that_wins_everything_stays_finite() -> None:
    assert 0.9 < length_controlled([*scores(5, 0, 30), *scores(5, 0, -30)]) < 1
    assert 0 < length_controlled(scores(1, 0, 30)) < 1
    # Length alone decides.
    assert abs(length_controlled([*scores(5, 0, 30), *scores(0, 5, -30)])) < 0.01


def test_the_logistic_regression_is_at_the_minimum_that_plain_descent_finds() -> None:
    chance = np.random.default_rng(0)
    features = np.column_stack([np.ones(60), chance.normal(size=60)])
    wins = chance.choice([0.0, 0.5, 1.0], size=60)
    slow = np.zeros(2)
    for _ in range(4000):
        chances = 1 / (1 + np.exp(-features @ slow))
        slow = slow - 0.03 * (features.T @ (chances - wins) + 0.01 * slow)
    assert fit_logistic(features, wins) == pytest.approx(slow, abs=1e-8)
