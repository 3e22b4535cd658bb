"""Silence counts against what was seen recently, and not while this process was late itself."""

from __future__ import annotations

import asyncio
import time

import pytest

from plato.patience import MOST, PAUSE_KEPT, PAUSES, Patience, loop_clock

LEAST_S = 0.3


async def test_time_in_which_the_loop_did_not_run_does_not_count() -> None:
    clock = loop_clock()
    await asyncio.sleep(0.2)
    before = clock.time()
    time.sleep(1.0)  # noqa: ASYNC251 - as on a busy machine
    await asyncio.sleep(0.01)
    assert clock.time() - before < 0.5
    assert clock.lateness > 0.5
    before = clock.time()
    await asyncio.sleep(0.3)
    assert clock.time() - before >= 0.2


async def test_a_process_that_is_silent_counts_as_lost() -> None:
    watch = Patience(LEAST_S).watch()
    assert LEAST_S - 0.05 < watch.left_s <= LEAST_S
    await asyncio.sleep(LEAST_S + 0.1)
    assert watch.left_s <= 0
    watch.restart()
    assert watch.left_s > 0


async def test_a_process_is_not_lost_because_its_watcher_was_late() -> None:
    watch = Patience(LEAST_S).watch()
    await asyncio.sleep(0)
    time.sleep(5 * LEAST_S)  # noqa: ASYNC251
    await asyncio.sleep(0.01)
    assert watch.left_s > 0


@pytest.mark.parametrize("pause", [0.01, 0.5, 100.0])
def test_pauses_make_patient_and_are_forgotten(pause: float) -> None:
    patience = Patience(1.0)
    patience.note(pause)
    assert patience.limit_s == min(MOST, max(1.0, PAUSES * pause))
    for _ in range(200):
        patience.note(0.0)
    assert patience.limit_s == 1.0
    assert PAUSE_KEPT < 1
