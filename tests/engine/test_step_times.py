"""The useful batch width follows from measured step times."""

from __future__ import annotations

from math import inf

import pytest

from plato.engine.step_times import LEAST_PREFILL, StepCurve, StepTimes


def test_before_anything_is_measured_all_widths_pay() -> None:
    assert StepTimes().curve.useful_width == inf


def test_where_a_wider_step_costs_little_more_all_widths_pay() -> None:
    times = StepTimes()
    for width in (1, 2, 4, 8, 16) * 5:
        times.note(width, 0.020 + 0.001 * width)
    assert times.curve.useful_width == inf


def test_where_a_step_takes_as_long_as_its_sequences_alone_no_more_pays() -> None:
    times = StepTimes()
    for width in (1, 2, 4, 8, 16) * 5:
        times.note(width, 0.010 * width if width > 4 else 0.040)
    assert times.curve.useful_width == 4


def test_it_follows_when_the_machine_changes() -> None:
    times = StepTimes()
    for _ in range(50):
        times.note(4, 0.04)
        times.note(8, 0.08)
    assert times.curve.useful_width == 4
    for _ in range(50):
        times.note(8, 0.05)
    assert times.curve.useful_width == inf


def test_a_long_prompt_has_room_beside_others_by_what_it_costs_them() -> None:
    times = StepTimes()
    assert times.room_beside(1) is None
    for _ in range(50):
        times.note(1, 0.010)
        times.note(8, 0.030)
        times.note_prefill(1, 100, 0.010 + 100 * 0.001)
    # 10 ms and 15 tokens of 1 ms: two and a half times as long.
    assert times.room_beside(1) == 15
    # Alone: half a second.
    assert times.room_beside(0) == 500
    assert times.room_beside(8) == 45
    for _ in range(50):
        times.note_prefill(1, 100, 0.010 + 100 * 0.1)
    assert times.room_beside(1) == LEAST_PREFILL


def test_steps_between_and_beyond_the_measured_widths_follow_the_nearest_ones() -> None:
    curve = StepCurve(((1, 0.010), (4, 0.016), (8, 0.032)))
    assert [curve.seconds(width) for width in (0.5, 1, 2, 4, 6)] == [
        0.010,
        0.010,
        pytest.approx(0.012),
        0.016,
        0.024,
    ]
    assert curve.seconds(10) == pytest.approx(0.040)
    assert curve.rate(4) == pytest.approx(250)


@pytest.mark.parametrize(
    ("seconds", "widest"), [(0.009, 0), (0.010, 1), (0.012, 2), (0.016, 4), (0.024, 6), (0.040, 10)]
)
def test_the_widest_step_within_a_time_is_the_inverse_of_its_seconds(
    seconds: float, widest: float
) -> None:
    curve = StepCurve(((1, 0.010), (4, 0.016), (8, 0.032)))
    assert curve.widest(seconds) == pytest.approx(widest)


def test_what_is_not_known_is_no_limit() -> None:
    assert StepCurve().seconds(3) == 0
    assert StepCurve().rate(3) == StepCurve().widest(0.01) == inf
    single = StepCurve(((4, 0.02),))
    assert (single.seconds(1), single.seconds(9)) == (0.02, 0.02)
    assert (single.widest(0.01), single.widest(0.02)) == (0, inf)
    flat = StepCurve(((1, 0.02), (4, 0.02)))
    assert flat.widest(0.02) == inf


def test_a_wider_step_never_seems_faster() -> None:
    times = StepTimes()
    times.note(2, 0.05)
    times.note(4, 0.03)
    assert [seconds for _, seconds in times.curve.points] == [0.03, 0.03]
