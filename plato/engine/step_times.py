"""Measured step times: what one more sequence costs, and room for long prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise

SMOOTHING = 0.2
SLOWDOWN = 2.5
"""How much longer a decode step may take because of a long prompt of another run."""
ALONE_S = 0.5
"""How long a step of a long prompt may take where nobody decodes: a newcomer waits for it."""
LEAST_PREFILL = 1
"""Tokens of a long prompt that every step computes, whatever they cost."""
LEAST_GAIN = 1.1
"""A doubled batch must increase throughput at least by this factor."""


@dataclass(frozen=True, slots=True)
class StepCurve:
    """Seconds of a decode step by its number of sequences, as far as they were measured."""

    points: tuple[tuple[float, float], ...] = ()
    """(sequences, seconds), both ascending; the seconds may stay the same."""

    def __bool__(self) -> bool:
        return bool(self.points)

    def seconds(self, width: float) -> float:
        """Seconds of a step of `width` sequences; 0 if nothing is known.

        Interpolated, and beyond the widest that was measured extrapolated; a step narrower than all
        measured ones counts as the narrowest.
        """
        if len(self.points) < 2 or width <= self.points[0][0]:
            return self.points[0][1] if self.points else 0.0
        (low, fast), (high, slow) = next(
            (pair for pair in pairwise(self.points) if width <= pair[1][0]), self.points[-2:]
        )
        return fast + (slow - fast) * (width - low) / (high - low)

    def rate(self, width: float) -> float:
        """Tokens a second of `width` sequences; infinite if nothing is known."""
        seconds = self.seconds(width)
        return width / seconds if seconds else math.inf

    def widest(self, seconds: float) -> float:
        """The most sequences whose step takes at most `seconds`; infinite if that is unknown."""
        if not self.points:
            return math.inf
        if self.points[0][1] > seconds:
            return 0.0
        for (low, fast), (high, slow) in pairwise(self.points):
            if slow > seconds:
                return low + (high - low) * (seconds - fast) / (slow - fast)
        if len(self.points) < 2:
            return math.inf
        (low, fast), (high, slow) = self.points[-2:]
        return high + (seconds - slow) * (high - low) / (slow - fast) if slow > fast else math.inf

    def bearable_s(self, runs: int, slowdown: float, token_target_s: float | None = None) -> float:
        """Seconds of a step with branches of so many runs that others can bear.

        The target for the time between tokens, or `slowdown` times a step without branches.
        """
        if token_target_s is not None:
            return token_target_s
        return slowdown * self.seconds(runs)

    @property
    def useful_width(self) -> float:
        """Largest width that still increases throughput; infinite while all do."""
        for (narrow, fast), (wide, slow) in pairwise(self.points):
            if wide < 1.5 * narrow:
                continue
            gain = (wide / slow) / (narrow / fast)
            # LEAST_GAIN is for a doubling; scale it to the actual ratio.
            if gain < LEAST_GAIN ** ((wide / narrow - 1) or 1):
                return max(1, round(narrow))
        return math.inf


NOT_MEASURED = StepCurve()


class StepTimes:
    """Smoothed durations of decode-only steps, by number of sequences.

    Widths are grouped by powers of two: neighbouring widths differ less than steps vary.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, tuple[float, float]] = {}
        """By power of two: mean width and mean seconds; bounded by the bits of a width."""
        self.curve = NOT_MEASURED
        """What is known."""
        self.prefill_s = 0.0
        """Smoothed seconds that a prompt token adds to a step; 0: not known yet."""

    def note(self, width: int, seconds: float) -> None:
        """Record a step of `width` sequences with one token each."""
        key = width.bit_length()
        known_width, known = self._seconds.get(key, (float(width), seconds))
        self._seconds[key] = (
            known_width + SMOOTHING * (width - known_width),
            known + SMOOTHING * (seconds - known),
        )
        widths, times = zip(*(self._seconds[key] for key in sorted(self._seconds)), strict=True)
        # A wider step is never faster: where it seems so, the narrower one was disturbed.
        ascending = [*accumulate(reversed(times), min)][::-1]
        self.curve = StepCurve(tuple(zip(widths, ascending, strict=True)))

    def note_prefill(self, width: int, tokens: int, seconds: float) -> None:
        """Record a step that computed `tokens` prompt tokens beside `width` decoding sequences."""
        each = max(0.0, seconds - self._decode_s(width)) / tokens
        self.prefill_s += (SMOOTHING if self.prefill_s else 1.0) * (each - self.prefill_s)

    def room_beside(self, width: int) -> int | None:
        """Tokens of a long prompt that a step of `width` sequences has room for; `None`: any.

        With them it takes at most `SLOWDOWN` times as long; without other sequences, `ALONE_S`.
        """
        room_s = (SLOWDOWN - 1) * self._decode_s(width) if width else ALONE_S
        if not room_s or not self.prefill_s:
            return None
        return max(LEAST_PREFILL, int(room_s / self.prefill_s))

    def _decode_s(self, width: int) -> float:
        """Seconds of a decode step; 0 if none was measured."""
        return self.curve.seconds(width) if width else 0.0
