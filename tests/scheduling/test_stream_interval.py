"""Tokens are sent less often where many sequences are decoded."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from plato.scheduling.stream_interval import HIDDEN_INTERVALS, MESSAGES_PER_S, StreamInterval


def test_hidden_text_is_sent_less_often() -> None:
    interval = StreamInterval(0.1)
    assert interval.seconds(hidden=False) == 0.1
    assert interval.seconds(hidden=True) == pytest.approx(HIDDEN_INTERVALS * 0.1)


def test_many_sequences_send_no_more_than_a_scheduler_can_take() -> None:
    interval = StreamInterval(0.1)
    with ExitStack() as sequences:
        for _ in range(int(MESSAGES_PER_S * 0.1)):
            sequences.enter_context(interval.sequence())
        assert interval.seconds(hidden=False) == 0.1
        sequences.enter_context(interval.sequence())
        assert interval.seconds(hidden=False) == pytest.approx(0.2)
    assert interval.seconds(hidden=False) == 0.1


def test_without_an_interval_nothing_is_grouped() -> None:
    interval = StreamInterval(0.0)
    with interval.sequence():
        assert interval.seconds(hidden=True) == 0.0
