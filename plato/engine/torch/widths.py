"""Measured decode step times by batch width, and the largest width that increases throughput."""

from __future__ import annotations

from itertools import pairwise

SMOOTHING = 0.2
LEAST_GAIN = 1.1
"""A doubled batch must increase throughput at least by this factor."""


class StepTimes:
    """Smoothed durations of decode-only steps, by number of sequences.

    Widths are grouped by powers of two: neighbouring widths differ less than steps vary.
    """

    def __init__(self, max_width: int) -> None:
        self._max_width = max_width
        self._seconds: dict[int, tuple[float, float]] = {}
        """By power of two: mean width and mean seconds; bounded by the bits of `max_width`."""
        self.useful_width = max_width
        """See `Load.useful_width`."""

    def note(self, width: int, seconds: float) -> None:
        """Record a step of `width` sequences with one token each."""
        key = width.bit_length()
        known_width, known = self._seconds.get(key, (float(width), seconds))
        self._seconds[key] = (
            known_width + SMOOTHING * (width - known_width),
            known + SMOOTHING * (seconds - known),
        )
        self.useful_width = self._find()

    def _find(self) -> int:
        points = [self._seconds[key] for key in sorted(self._seconds)]
        for (narrow, fast), (wide, slow) in pairwise(points):
            if wide < 1.5 * narrow:
                continue
            gain = (wide / slow) / (narrow / fast)
            # LEAST_GAIN is for a doubling; scale it to the actual ratio.
            if gain < LEAST_GAIN ** ((wide / narrow - 1) or 1):
                return max(1, round(narrow))
        return self._max_width
