"""Waiting for other processes."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import pytest

_http = httpx.Client(timeout=6, trust_env=False)
# One for all: making one reads every certificate authority, which takes the starting server's time.


def wait_until(
    true: Callable[[], bool], deadline_s: float, what: str, *, every_s: float = 0.02
) -> float:
    """Wait for a condition; returns the seconds that took."""
    started = time.monotonic()
    while not true():
        if time.monotonic() - started > deadline_s:
            pytest.fail(f"after {deadline_s} s still not: {what}")
        time.sleep(every_s)
    return time.monotonic() - started


def status(url: str) -> int | None:
    """The status of what answers there; `None` if nothing does."""
    try:
        return _http.get(url).status_code
    except httpx.HTTPError:
        return None


def says_ok(url: str) -> bool:
    """Whether something answers there, and says that all is well."""
    return status(url) == httpx.codes.OK
