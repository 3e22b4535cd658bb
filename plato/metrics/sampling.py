"""Sampling of state and totals at an interval."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from plato.metrics.recorder import Recorder
from plato.metrics.recording import ProcessSampler
from plato.metrics.table import LOOP_LAG

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0


async def sample(recorder: Recorder, *samplers: Callable[[], None]) -> None:
    """Call the samplers, and sample this process, at an interval until cancelled."""
    calls: tuple[Callable[[], None], ...] = (ProcessSampler(recorder), *samplers)
    failing: set[int] = set()
    """Samplers whose last call failed: each failure is logged once."""
    while True:
        due = time.monotonic() + INTERVAL_S
        await asyncio.sleep(INTERVAL_S)
        recorder.observe(LOOP_LAG, max(0.0, time.monotonic() - due))
        for number, call in enumerate(calls):
            try:
                call()
                failing.discard(number)
            except Exception:
                if number not in failing:
                    logger.exception("sampling metrics failed; retrying")
                failing.add(number)
