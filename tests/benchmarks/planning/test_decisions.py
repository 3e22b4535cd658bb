"""Split decisions against labels: thresholds and areas that can be worked out by hand."""

from __future__ import annotations

import pytest

from benchmarks.common.rows import InputError
from benchmarks.planning.decisions import (
    Decision,
    area_under_curve,
    calibrate,
    check_labels,
    evaluate,
    log_odds,
    probability,
)


def decided(*decisions: tuple[float, bool]) -> list[Decision]:
    return [Decision("Why?", chance, fit, decision_s=chance) for chance, fit in decisions]


def test_the_area_is_the_chance_that_a_fit_question_ranks_below_an_unfit_one() -> None:
    # Of four pairs two are in order, one is a tie, one is not.
    found = decided((0.1, True), (0.4, True), (0.2, False), (0.4, False))
    assert area_under_curve(found) == pytest.approx((1 + 1 + 0 + 0.5) / 4)


def test_the_threshold_lies_in_the_middle_of_the_widest_of_the_cheapest_gaps() -> None:
    found = decided((0.1, True), (0.2, True), (0.8, False), (0.9, False))
    assert calibrate(found) == pytest.approx(0.5)
    # Splitting up to 0.1 misses one (costs 1), up to 0.4 splits one that is unfit (costs 2).
    found = decided((0.1, True), (0.2, False), (0.4, True), (0.9, False))
    assert calibrate(found) == pytest.approx(probability((log_odds(0.1) + log_odds(0.2)) / 2))


def test_errors_are_counted_by_half_and_threshold() -> None:
    found = evaluate(
        decided(
            *((0.1, True), (0.1, True)),
            *((0.2, True), (0.3, False)),
            *((0.8, False), (0.6, True)),
            *((0.9, False), (0.7, False)),
        ),
        threshold=0.15,
    )
    assert found == {
        "questions": 8,
        "median_decision_s": pytest.approx(0.45),
        "calibrated_threshold": pytest.approx(0.5),
        "settings_threshold": 0.15,
        "auc_calibration": 1,
        "auc_held_out": pytest.approx(3 / 4),
        "calibrated_calibration_split": 2,
        "calibrated_calibration_false": 0,
        "calibrated_calibration_missed": 0,
        "calibrated_held_out_split": 2,
        "calibrated_held_out_false": 1,
        "calibrated_held_out_missed": 1,
        "settings_calibration_split": 1,
        "settings_calibration_false": 0,
        "settings_calibration_missed": 1,
        "settings_held_out_split": 1,
        "settings_held_out_false": 0,
        "settings_held_out_missed": 1,
    }


def test_equal_probabilities_have_no_gap_to_calibrate_in() -> None:
    assert calibrate(decided((0.3, True), (0.3, False))) == pytest.approx(0.3)


def test_each_half_needs_both_labels() -> None:
    check_labels([True, True, False, False])
    with pytest.raises(InputError, match="2 questions for held_out"):
        check_labels([True, False, False, False])
