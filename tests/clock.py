"""Time that passes when a test says so."""

from __future__ import annotations


class Clock:
    """Seconds, in place of `time.monotonic`."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now
