"""Measured step times: the largest width that increases throughput, and room for long prompts."""

from __future__ import annotations

from itertools import pairwise

SMOOTHING = 0.2
SLOWDOWN = 2.5
"""How much longer a decode step may take because of a long prompt of another run."""
ALONE_S = 0.5
"""How long a step of a long prompt may take where nobody decodes: a newcomer waits for it."""
LEAST_PREFILL = 1
"""Tokens of a long prompt that every step computes, whatever they cost."""
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
        self._prefill_s = 0.0
        """Smoothed seconds that a prompt token adds to a step; 0: not known yet."""

    def note(self, width: int, seconds: float) -> None:
        """Record a step of `width` sequences with one token each."""
        key = width.bit_length()
        known_width, known = self._seconds.get(key, (float(width), seconds))
        self._seconds[key] = (
            known_width + SMOOTHING * (width - known_width),
            known + SMOOTHING * (seconds - known),
        )
        self.useful_width = self._find()

    def note_prefill(self, width: int, tokens: int, seconds: float) -> None:
        """Record a step that computed `tokens` prompt tokens beside `width` decoding sequences."""
        each = max(0.0, seconds - self._decode_s(width)) / tokens
        self._prefill_s += (SMOOTHING if self._prefill_s else 1.0) * (each - self._prefill_s)

    def room_beside(self, width: int) -> int | None:
        """Tokens of a long prompt that a step of `width` sequences has room for; `None`: any.

        With them it takes at most `SLOWDOWN` times as long; without other sequences, `ALONE_S`.
        """
        room_s = (SLOWDOWN - 1) * self._decode_s(width) if width else ALONE_S
        if not room_s or not self._prefill_s:
            return None
        return max(LEAST_PREFILL, int(room_s / self._prefill_s))

    def _decode_s(self, width: int) -> float:
        """Seconds of a decode step, by the nearest width that was measured; 0 if none was."""
        if not self._seconds or not width:
            return 0.0
        key = min(self._seconds, key=lambda known: abs(known - width.bit_length()))
        return self._seconds[key][1]

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
