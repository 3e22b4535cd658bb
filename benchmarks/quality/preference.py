"""Which answers judges prefer: net win, with intervals, by category and controlled for length."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.rows import InputError
from benchmarks.common.statistics import bootstrap, holm, sign_test
from benchmarks.quality.pairs import Key, Outcome, Verdict, outcomes

SCORES = {Outcome.WIN: 1, Outcome.LOSS: -1, Outcome.TIE: 0, Outcome.INCONSISTENT: 0}
RIDGE = 0.01
"""Keeps the fit finite where one mode wins everything, or length alone decides."""
STEPS, PRECISION = 100, 1e-9
"""Of the fit: most steps, and the largest change that is none."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judged:
    """One question that at least one judge has judged in both orders."""

    category: str
    score: float
    """1 for a win, -1 for a loss, else 0; the mean over judges."""
    longer_by: int
    """Words more than the other answer."""


def report(keys: Sequence[Key], judges: Sequence[Sequence[Verdict]]) -> dict[str, Any]:
    """Every judge's verdicts against one key.

    `wins` to `unjudged` count questions, summed over judges. `net_win` is the mean score of the
    judged questions: with one judge, wins less losses over judged questions. Its interval comes
    from resampling questions with both their answers and all their verdicts, its p-value from an
    exact sign test over questions, those by category corrected by Holm's method. Raises
    `InputError`.
    """
    by_judge = [outcomes(keys, verdicts) for verdicts in judges]
    counts = Counter(outcome for found in by_judge for outcome in found.values())
    questions = {key.id: key for key in keys}
    judged = []
    for question, key in questions.items():
        found = [one[question] for one in by_judge if one[question] is not Outcome.UNJUDGED]
        if found:
            score = fmean(SCORES[outcome] for outcome in found)
            judged.append(Judged(key.category, score, key.words - key.words_against))
    if not judged:
        raise InputError("no question has verdicts in both orders; judge both orders of each")
    return {
        "judges": len(judges),
        "questions": len(questions),
        **{outcome.value: counts[outcome] for outcome in Outcome},
        **_summary(judged),
        "net_win_interval": bootstrap([one.score for one in judged], fmean),
        "length_controlled_net_win": length_controlled(judged),
        "length_controlled_net_win_interval": bootstrap(judged, length_controlled),
        "mean_words": fmean(key.words for key in questions.values()),
        "mean_words_against": fmean(key.words_against for key in questions.values()),
        "by_category": _by_category(judged),
    }


def _summary(judged: Sequence[Judged]) -> dict[str, Any]:
    return {
        "judged": len(judged),
        "net_win": fmean(one.score for one in judged),
        "p_value": sign_test(
            sum(one.score > 0 for one in judged), sum(one.score < 0 for one in judged)
        ),
    }


def _by_category(judged: Sequence[Judged]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        groups[one.category].append(one)
    found = {category: _summary(group) for category, group in sorted(groups.items())}
    adjusted = holm({category: summary["p_value"] for category, summary in found.items()})
    return {
        category: summary | {"p_value_holm": adjusted[category]}
        for category, summary in found.items()
    }


def length_controlled(judged: Sequence[Judged]) -> float:
    """The net win that answers of equal length would have.

    The model of length-controlled AlpacaEval 2 (Dubois and others, 2024, arXiv 2404.04475)
    without its term for the question's difficulty, which needs many models to be known:

        P(win) = sigmoid(a + b * tanh(d / std(d)))

    where d is the difference of lengths. At d = 0 the net win is 2 * sigmoid(a) - 1. Ties count
    as half a win.
    """
    differences = np.array([one.longer_by for one in judged], dtype=float)
    deviation = differences.std() or 1.0
    features = np.column_stack([np.ones(len(judged)), np.tanh(differences / deviation)])
    wins = np.array([(one.score + 1) / 2 for one in judged])
    a = fit_logistic(features, wins)[0]
    # 2 * sigmoid(a) - 1
    return float(np.tanh(a / 2))


def fit_logistic(features: Floats, wins: Floats) -> Floats:
    """Coefficients of a logistic regression with a small ridge, by Newton's method.

    `features`: (rows, columns); `wins`: (rows,), each from 0 to 1. The loss is strictly convex; a
    step that would raise it is halved.
    """

    def loss(coefficients: Floats) -> float:
        logits = features @ coefficients
        ridge = RIDGE / 2 * coefficients @ coefficients
        return float(np.logaddexp(0, logits).sum() - wins @ logits + ridge)

    found = np.zeros(features.shape[1])
    ridge = RIDGE * np.eye(features.shape[1])
    current = loss(found)
    for _ in range(STEPS):
        chances = 1 / (1 + np.exp(-features @ found))
        weighted = features * (chances * (1 - chances))[:, None]
        gradient = features.T @ (chances - wins) + RIDGE * found
        step = np.linalg.solve(features.T @ weighted + ridge, gradient)
        while loss(found - step) > current and np.abs(step).max() > PRECISION:
            step = step / 2
        if np.abs(step).max() <= PRECISION:
            break
        found = found - step
        current = loss(found)
    return found
