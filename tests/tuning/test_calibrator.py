"""Thresholds follow the examples, also where there are few or all are alike."""

from __future__ import annotations

import pytest

from plato.tuning.calibrator import best_dependencies, split_threshold


@pytest.mark.parametrize(
    ("odds", "split", "threshold"),
    [
        ([-3.0, -1.0, 2.0, 4.0], [True, True, False, False], 0.0),
        ([-9.0, -7.0, -3.0, -1.0], [True, True, False, False], -5.0),
        # A false split costs twice as much as a missed one.
        ([-4.0, -2.0, -1.0], [True, False, True], -3.0),
        # Nothing speaks against even odds.
        ([-5.0, -3.0, -1.0], [True, True, True], 0.0),
        ([3.0, 5.0, 9.0], [False, False, False], 0.0),
        # All or none are possible.
        ([1.0, 3.0], [True, True], 4.0),
        ([-3.0, -1.0], [False, False], -4.0),
        ([], [], 0.0),
    ],
)
def test_the_split_threshold_is_the_cheapest_nearest_to_even_odds(
    odds: list[float], split: list[bool], threshold: float
) -> None:
    assert split_threshold(odds, split) == threshold


@pytest.mark.parametrize(
    ("found", "best"),
    [
        # Enough parallelism comes before edges,
        ([(0.70, 0.80, 0.96), (0.80, 0.90, 0.90)], 0),
        # beyond which it is worth nothing;
        ([(0.70, 0.80, 1.20), (0.80, 0.80, 0.95)], 1),
        # among equally good edges recall decides,
        ([(0.750, 0.88, 1.00), (0.745, 0.91, 0.95)], 1),
        # but not for worse ones.
        ([(0.750, 0.88, 1.00), (0.735, 0.95, 0.95)], 0),
        # If none leaves enough parallelism, the most.
        ([(0.80, 0.90, 0.80), (0.70, 0.80, 0.90)], 1),
    ],
)
def test_dependencies_keep_parallelism_then_edges_then_recall(
    found: list[tuple[float, float, float]], best: int
) -> None:
    names = ("edge_f1", "dependency_recall", "parallelism_ratio")
    assert best_dependencies([dict(zip(names, row, strict=True)) for row in found]) == best
