"""The bound is what a schedule by hand gives."""

from __future__ import annotations

import pytest

from benchmarks.answering.bound import Part, PlanWork, bound
from plato.testing.paced import Pace

# A step takes 10 ms and 2 ms more for every further sequence; 100 prompt tokens take 100 ms.
PACE = Pace(step_ms=((1, 10.0), (2, 12.0), (16, 40.0)), prefill_tokens_per_s=1000.0)


def test_a_sequence_takes_its_prompt_and_a_step_for_every_further_token() -> None:
    alone = bound([Part(11, (), 100)], None, PACE)
    assert alone.first_text_s == pytest.approx(0.100)
    assert alone.latency_s == pytest.approx(0.100 + 10 * 0.010)


def test_parts_that_need_nothing_decode_side_by_side() -> None:
    both = bound([Part(11, (), 50), Part(11, (), 50)], None, PACE)
    assert both.latency_s == pytest.approx(0.100 + 10 * 0.012)


def test_a_part_waits_for_what_it_needs() -> None:
    chain = bound([Part(11, (), 100), Part(11, (1,), 100)], None, PACE)
    assert chain.latency_s == pytest.approx(2 * (0.100 + 10 * 0.010))


def test_sequences_past_the_limit_wait() -> None:
    one_by_one = bound([Part(11, (), 100), Part(11, (), 100)], None, PACE, max_sequences=1)
    assert one_by_one.latency_s == pytest.approx(2 * (0.100 + 10 * 0.010))


def test_a_part_starts_with_its_line_or_without_pipelining_after_the_plan() -> None:
    plan = PlanWork(prefill=100, lines=(5, 10), steps=10, tokens=10)
    parts = [Part(2, (), 10), Part(2, (), 10)]
    piped = bound(parts, plan, PACE)
    # The plan's prompt brings its first step's token; its fifth completes the first line.
    assert piped.first_text_s == pytest.approx(0.100 + 4 * 0.010 + 0.010 + 0.010)
    waiting = bound(parts, plan, PACE, pipelining=False)
    assert waiting.first_text_s == pytest.approx(0.100 + 9 * 0.010 + 0.020)
    assert waiting.latency_s == pytest.approx(0.100 + 9 * 0.010 + 0.020 + 0.012)
    longer = [Part(12, (), 10), Part(2, (), 10)]
    late = bound(longer, plan, PACE, pipelining=False)
    assert bound(longer, plan, PACE).latency_s < late.latency_s


def test_forced_tokens_of_a_plan_are_computed_beside_its_steps() -> None:
    parts = [Part(1, (), 1)]
    usual = bound(parts, PlanWork(10, (11,), 11, 11), PACE)
    forced = bound(parts, PlanWork(10, (11,), 11, 22), PACE)
    assert forced.latency_s - usual.latency_s == pytest.approx(10 / 1000)


def test_a_circle_is_an_error() -> None:
    with pytest.raises(ValueError, match="circle"):
        bound([Part(2, (2,)), Part(2, (1,))], None, PACE)
