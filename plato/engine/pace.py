"""How fast a model is: measured step times, to study pools of replicas with."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a model was measured to be.

    The defaults are the default model's in int8, on two cores of a server CPU
    (`python -m benchmarks.engine`).
    """

    step_ms: tuple[tuple[int, float], ...] = (
        (1, 14.4),
        (2, 17.2),
        (4, 25.0),
        (8, 33.2),
        (16, 52.4),
    )
    """(sequences, milliseconds of a step that decodes one token of each), ascending."""
    prefill_tokens_per_s: float = 700.0
    kv_bytes_per_token: int = 23_040
    context_length: int = 8192


def step_seconds(pace: Pace, decoding: int, prefilled: int) -> float:
    """Seconds of a step: `decoding` sequences with one new token, and `prefilled` tokens more.

    Between the widths that were measured the time is interpolated, past them extrapolated.
    """
    return _by_width(pace.step_ms, decoding) / 1e3 + prefilled / pace.prefill_tokens_per_s


def _by_width(points: tuple[tuple[int, float], ...], width: int) -> float:
    if width == 0:
        return 0.0
    at = min(max(1, bisect_left(points, (width, 0.0))), len(points) - 1)
    (low, fast), (high, slow) = points[at - 1], points[at]
    return fast + (slow - fast) * (width - low) / (high - low)
