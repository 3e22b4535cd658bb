"""Thresholds follow the examples, also where there are few or all are alike."""

from __future__ import annotations

import pytest

from plato.tuning.calibrator import split_threshold


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
