"""Statistics of samples, with confidence intervals."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import comb
from statistics import median
from typing import TypeVar

RESAMPLES = 2000

T = TypeVar("T")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie, interpolated."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def bootstrap(
    values: Sequence[T], statistic: Callable[[Sequence[T]], float], confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic (Efron and Tibshirani, 1993, chapter 13)."""
    chance = random.Random(0)
    found = [statistic(chance.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    tail = (1 - confidence) / 2
    return percentile(found, tail), percentile(found, 1 - tail)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact binomial p-value of wins and losses being equally likely; ties left out."""
    count = wins + losses
    tail = sum(comb(count, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / (1 << count))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values of several tests at once (Holm, 1979, step down)."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, p10 and p90."""
    return {
        "median": median(values),
        "p10": percentile(values, 0.1),
        "p90": percentile(values, 0.9),
    }


def mcnemar(pairs: Iterable[tuple[bool, bool]]) -> float:
    """Two-sided p-value of McNemar's exact test: are both of a pair right equally often?

    Under the hypothesis, of the pairs that differ each is a fair coin (McNemar, 1947; exact form:
    Agresti, Categorical Data Analysis, 2013, section 11.1).
    """
    differing = [first for first, second in pairs if first != second]
    return sign_test(sum(differing), len(differing) - sum(differing))
