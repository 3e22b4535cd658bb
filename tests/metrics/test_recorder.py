"""A recorder takes what is declared, and nothing else."""

from __future__ import annotations

import pytest

from plato.metrics import NO_METRICS, Kind, Metric, Totals
from plato.metrics.recorder import OTHER
from tests.recording import MemoryRecorder

ERRORS = Metric("plato_x_total", Kind.COUNTER, "Errors.", {"code": ("a", "b")})
BOTH = Metric("plato_y_total", Kind.COUNTER, "Two.", {"p": ("1", "2"), "q": ("3", "4")})
LEVEL = Metric("plato_level", Kind.GAUGE, "A level.")
TIME = Metric("plato_time_seconds", Kind.HISTOGRAM, "A time.", buckets=(1.0,))


def test_counters_add_gauges_keep_the_last_and_histograms_keep_all() -> None:
    recorder = MemoryRecorder()
    for value in (1.0, 2.0):
        recorder.add(ERRORS, value, code="a")
        recorder.set(LEVEL, value)
        recorder.observe(TIME, value)
    assert recorder.total(ERRORS, code="a") == 3
    assert recorder.values(LEVEL) == [2]
    assert recorder.values(TIME) == [1, 2]


def test_a_label_value_that_is_not_declared_makes_no_series_of_its_own() -> None:
    recorder = MemoryRecorder()
    for code in ("a", "' OR 1=1", "b", "what a client sends"):
        recorder.add(ERRORS, code=code)
    assert recorder.totals(ERRORS, "code") == {"a": 1, "b": 1, OTHER: 2}


@pytest.mark.parametrize("labels", [{}, {"code": "a", "more": "b"}, {"kode": "a"}])
def test_labels_are_those_that_are_declared(labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="has labels"):
        MemoryRecorder().add(ERRORS, **labels)


def test_a_metric_is_used_as_what_it_is() -> None:
    with pytest.raises(ValueError, match="is a gauge, not a counter"):
        MemoryRecorder().add(LEVEL)
    with pytest.raises(ValueError, match="cannot go down"):
        MemoryRecorder().add(ERRORS, -1, code="a")


def test_nothing_is_written_for_nothing() -> None:
    recorder = MemoryRecorder()
    recorder.add(ERRORS, 0, code="a")
    assert recorder.values(ERRORS, code="a") == []
    NO_METRICS.add(ERRORS, wrong="labels")  # Whoever has no metrics pays for no check of them.


def test_totals_count_up_to_what_somebody_else_counts() -> None:
    recorder = MemoryRecorder()
    totals = Totals(recorder)
    for total in (5, 5, 7):
        totals.record(ERRORS, total, code="a")
    totals.record(ERRORS, 1, code="b")
    assert recorder.values(ERRORS, code="a") == [5, 2]
    assert recorder.values(ERRORS, code="b") == [1]


def test_a_total_that_has_begun_again_loses_nothing() -> None:
    recorder = MemoryRecorder()
    totals = Totals(recorder)
    for total in (5, 2, 3):
        totals.record(ERRORS, total, code="a")
    assert recorder.total(ERRORS, code="a") == 5 + 2 + 1


def test_all_series_are_known_in_advance() -> None:
    assert list(BOTH.series()) == [
        {"p": "1", "q": "3"},
        {"p": "1", "q": "4"},
        {"p": "2", "q": "3"},
        {"p": "2", "q": "4"},
    ]
    assert list(LEVEL.series()) == [{}]
