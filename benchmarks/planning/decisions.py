"""Does the model split the questions that people would split?

The threshold is calibrated on every second question and evaluated on the others; a false split
costs twice a missed one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks.common.rows import InputError
from benchmarks.planning.labelled import CALIBRATION, HELD_OUT

FALSE_SPLIT_COST = 2.0
MISSED_SPLIT_COST = 1.0


@dataclass(frozen=True, slots=True)
class Decision:
    """The model's probability of not splitting, and what people say."""

    question: str
    one_probability: float
    fit: bool
    decision_s: float = 0.0
    """Seconds until the first line of the plan, or `[ONE]`."""


def cost(decisions: Sequence[Decision], threshold: float) -> float:
    """What the wrong decisions cost: the model splits below or at `threshold`."""
    total = 0.0
    for decision in decisions:
        split = decision.one_probability <= threshold
        if split and not decision.fit:
            total += FALSE_SPLIT_COST
        elif not split and decision.fit:
            total += MISSED_SPLIT_COST
    return total


def calibrate(decisions: Sequence[Decision]) -> float:
    """The cheapest threshold: in log odds, the middle of the cheapest gap between two questions.

    Of equally cheap gaps the widest: it is the one that other questions disturb least.
    """
    odds = sorted({log_odds(decision.one_probability) for decision in decisions})
    gaps = [
        (cost(decisions, probability((low + high) / 2)), low - high, (low + high) / 2)
        for low, high in pairwise(odds)
    ]
    return probability(min(gaps, default=(0.0, 0.0, odds[0]))[2])


def area_under_curve(decisions: Sequence[Decision]) -> float:
    """The chance that a fit question gets a lower probability of `[ONE]` than an unfit one."""
    fit = [d.one_probability for d in decisions if d.fit]
    unfit = [d.one_probability for d in decisions if not d.fit]
    wins = sum((f < u) + 0.5 * (f == u) for f in fit for u in unfit)
    return wins / (len(fit) * len(unfit))


def log_odds(chance: float) -> float:
    """The logit of a probability, kept finite."""
    chance = min(max(chance, 1e-12), 1 - 1e-12)
    return math.log(chance / (1 - chance))


def probability(odds: float) -> float:
    """The inverse of `log_odds`."""
    return 1 / (1 + math.exp(-odds))


def check_labels(fit: Sequence[bool]) -> None:
    """Raises `InputError` if a half lacks questions fit for splitting, or others."""
    for half, labels in ((CALIBRATION, fit[::2]), (HELD_OUT, fit[1::2])):
        if len(set(labels)) < 2:
            raise InputError(
                f"no two of the {len(labels)} questions for {half} have different labels; every "
                "second question is for calibration, and both halves need questions fit for "
                "splitting and others"
            )


def evaluate(decisions: Sequence[Decision], threshold: float) -> dict[str, Any]:
    """How well a calibrated threshold and `threshold` separate the questions, by half.

    `auc`: see `area_under_curve`. `split`, `false`, `missed`: numbers of questions that are split,
    that are and should not be, and that should be and are not. Their labels must have passed
    `check_labels`.
    """
    halves = {CALIBRATION: decisions[::2], HELD_OUT: decisions[1::2]}
    chosen = calibrate(halves[CALIBRATION])
    metrics: dict[str, Any] = {
        "questions": len(decisions),
        "median_decision_s": median(decision.decision_s for decision in decisions),
        "calibrated_threshold": chosen,
        "settings_threshold": threshold,
    }
    for half, of_half in halves.items():
        metrics[f"auc_{half}"] = area_under_curve(of_half)
    for name, limit in (("calibrated", chosen), ("settings", threshold)):
        for half, of_half in halves.items():
            splits = [each for each in of_half if each.one_probability <= limit]
            metrics[f"{name}_{half}_split"] = len(splits)
            metrics[f"{name}_{half}_false"] = sum(not each.fit for each in splits)
            metrics[f"{name}_{half}_missed"] = sum(
                each.fit and each.one_probability > limit for each in of_half
            )
    return metrics
