"""The useful batch width follows from measured step times."""

from __future__ import annotations

from plato.engine.torch.widths import LEAST_PREFILL, StepTimes


def test_before_anything_is_measured_all_widths_pay() -> None:
    assert StepTimes(16).useful_width == 16


def test_where_a_wider_step_costs_little_more_all_widths_pay() -> None:
    times = StepTimes(16)
    for width in (1, 2, 4, 8, 16) * 5:
        times.note(width, 0.020 + 0.001 * width)
    assert times.useful_width == 16


def test_where_a_step_takes_as_long_as_its_sequences_alone_no_more_pays() -> None:
    times = StepTimes(16)
    for width in (1, 2, 4, 8, 16) * 5:
        times.note(width, 0.010 * width if width > 4 else 0.040)
    assert times.useful_width == 4


def test_it_follows_when_the_machine_changes() -> None:
    times = StepTimes(8)
    for _ in range(50):
        times.note(4, 0.04)
        times.note(8, 0.08)
    assert times.useful_width == 4
    for _ in range(50):
        times.note(8, 0.05)
    assert times.useful_width == 8


def test_a_long_prompt_has_room_beside_others_by_what_it_costs_them() -> None:
    times = StepTimes(16)
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
