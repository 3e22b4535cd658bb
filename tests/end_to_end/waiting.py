"""Waiting for other processes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest


def wait_until(true: Callable[[], bool], deadline_s: float, what: str) -> float:
    """Wait for a condition; returns the seconds that took."""
    started = time.monotonic()
    while not true():
        if time.monotonic() - started > deadline_s:
            pytest.fail(f"after {deadline_s} s still not: {what}")
        time.sleep(0.02)
    return time.monotonic() - started
