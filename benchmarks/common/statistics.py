"""Statistics of samples, with confidence intervals."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from math import comb
from statistics import fmean, median

RESAMPLES = 2000


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie, interpolated."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def bootstrap(
    values: Sequence[float],
    statistic: Callable[[Sequence[float]], float] = fmean,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic (Efron and Tibshirani, 1993, chapter 13)."""
    chance = random.Random(0)
    found = [statistic(chance.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    tail = (1 - confidence) / 2
    return percentile(found, tail), percentile(found, 1 - tail)


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
    count, rarer = len(differing), min(sum(differing), len(differing) - sum(differing))
    tail = sum(comb(count, k) for k in range(rarer + 1))
    return min(1.0, 2 * tail / float(2**count))
