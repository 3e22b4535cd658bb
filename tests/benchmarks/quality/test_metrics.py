"""Metrics of answers whose values can be counted by hand."""

from __future__ import annotations

import pytest

from benchmarks.quality.metrics import (
    covers_title,
    cross_part_repetition,
    metrics,
    repetition,
    words,
)
from tests.benchmarks.quality.examples import answer, part


def test_words_are_lower_cased_and_without_punctuation() -> None:
    assert words("## It's the LAST one, Zoë!") == ["it", "s", "the", "last", "one", "zoë"]


def test_repetition_is_the_share_of_trigrams_that_stood_before() -> None:
    assert repetition("one two three") == 0
    # abc, bca, cab, abc: the fourth is the first.
    assert repetition("a b c a b c") == 0.25
    assert repetition("a a a a a") == pytest.approx(2 / 3)
    assert repetition("two words") == repetition("") == 0


def test_repetition_across_parts_counts_a_trigram_once_a_part() -> None:
    # abc and bcd; bcd and cde: one of three stands in both.
    assert cross_part_repetition([part("a b c d"), part("b c d e")]) == pytest.approx(1 / 3)
    assert cross_part_repetition([part("a a a a a a"), part("b b b b")]) == 0
    assert cross_part_repetition([part("a b"), part("")]) == 0


def test_a_title_is_covered_by_half_of_its_longer_words() -> None:
    assert covers_title(part("The frame bends.", "Check the frame and brakes")) is False
    assert covers_title(part("Check the frame.", "Check the frame and brakes"))
    assert covers_title(part("Why it is so.", "Why so"))
    assert not covers_title(part("", "Brakes"))


def test_pairs_of_modes_are_compared_over_the_same_questions() -> None:
    found = metrics(
        [
            answer("rain", "sequential", part("a b c a b c"), tokens=10, latency_s=2.0),
            answer(
                "snow", "sequential", part("a b c d", finish="length"), tokens=20, latency_s=4.0
            ),
            answer("hail", "sequential", part("a b c d")),
            answer(
                "rain",
                "plato",
                part("a b c d", "Letters"),
                part("b c d e", "b", finish="length"),
                tokens=12,
                latency_s=1.2,
            ),
            # Not split: the same answer as the sequential one.
            answer("snow", "plato", part("a b c d"), tokens=20, latency_s=5.0),
        ]
    )
    assert found.keys() == {"plato/sequential"}
    compared = found["plato/sequential"]
    assert (compared["questions"], compared["split"]) == (2, 1)

    every = compared["all"]
    assert every["length_ratio"] == pytest.approx((1.2 + 1.0) / 2)
    # 1.2 s for 2.0 s at 1.2 times the length, and 5 s for 4 s.
    assert every["latency_ratio"] == pytest.approx((0.5 + 1.25) / 2)
    # "a b c d b c d e" repeats one of six trigrams.
    assert every["repetition_ratio"] == pytest.approx((1 / 6 / 2) / (0.25 / 2))
    assert every["sequential"]["self_ended_share"] == 0.5
    assert every["plato"]["self_ended_share"] == pytest.approx(2 / 3)
    assert every["plato"]["tokens"] == 16

    split = compared["split_only"]
    assert split["length_ratio"] == pytest.approx(1.2)
    assert split["latency_ratio"] == pytest.approx(0.5)
    assert split["latency_ratio_interval"] == pytest.approx((0.5, 0.5))
    assert split["plato"]["cross_part_repetition"] == pytest.approx(1 / 3)
    assert split["plato"]["titles_covered"] == 0.5
    assert split["plato"]["parts"] == 2
    assert "cross_part_repetition" not in split["sequential"]


def test_between_planned_modes_both_must_have_split() -> None:
    both = part("a b c"), part("d e f")
    found = metrics(
        [
            answer("rain", "plato", *both),
            answer("snow", "plato", *both),
            answer("rain", "skeleton", *both),
            answer("snow", "skeleton", part("a b c")),
            answer("rain", "sequential", part("a b c")),
        ]
    )
    assert found.keys() == {"skeleton/sequential", "plato/sequential", "plato/skeleton"}
    assert (found["plato/skeleton"]["questions"], found["plato/skeleton"]["split"]) == (2, 1)


def test_empty_answers_have_no_ratio() -> None:
    found = metrics(
        [
            answer("rain", "sequential", part("a b c")),
            answer("rain", "plato", part("", "Rain"), part("", "Snow"), tokens=0),
        ]
    )
    compared = found["plato/sequential"]["all"]
    assert compared["uncounted"] == 1
    assert "length_ratio" not in compared
    assert compared["repetition_ratio"] is None
