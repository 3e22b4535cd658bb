"""How long steps of decoding take by width, as measured, and which widths pay."""

from __future__ import annotations

from itertools import pairwise

SMOOTHING = 0.2
LEAST_GAIN = 1.1
"""A doubled batch must decode this many times as many tokens a second, or it does not pay."""


class StepTimes:
    """Smoothed seconds of a step of decoding alone, by its number of sequences.

    Kept for powers of two, which each width counts to the nearest below: neighbouring widths
    differ less than a step from the next one.
    """

    def __init__(self, max_width: int) -> None:
        self._max_width = max_width
        self._seconds: dict[int, tuple[float, float]] = {}
        """By power of two: mean width and mean seconds; bounded by the bits of `max_width`."""
        self.useful_width = max_width
        """See `Load.useful_width`."""

    def note(self, width: int, seconds: float) -> None:
        """A step of `width` sequences, with one token each, took so long."""
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
            # Of a doubling: what a wider step brings is the same for each.
            if gain < LEAST_GAIN ** ((wide / narrow - 1) or 1):
                return max(1, round(narrow))
        return self._max_width
