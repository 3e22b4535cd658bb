"""A lower bound on the latency of an answer on one decoder, for comparison with measurements.

A list schedule (Graham, 1966) of the plan and its nodes over batched steps: nodes start as soon as
they are ready, a step takes its measured time for the batch width, uncached prompt tokens are
computed at the measured rate, and everything else (queues, messages, threads) costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plato.testing.paced import Pace, step_seconds

MAX_SEQUENCES = 16
PREFILL_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an answer, in tokens."""

    tokens: int
    dependencies: tuple[int, ...] = ()
    prefill: int = 1
    """Prompt tokens that nothing before has computed; at least the last one."""


@dataclass(frozen=True, slots=True)
class PlanWork:
    """What decoding a plan takes."""

    prefill: int
    lines: tuple[int, ...]
    """Steps after which each line is complete."""
    steps: int
    tokens: int
    """More than steps: the grammar forces some, which are computed beside the decoded ones."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Seconds from the question on."""

    latency_s: float
    first_text_s: float
    """Until the first token of the first part."""


@dataclass
class _Sequence:
    number: int
    """0 for the plan, else that of the part."""
    prefill: float
    steps: int
    """That it decodes, the one that its prompt's end brings included."""
    done: int = 0


def bound(
    parts: Sequence[Part],
    plan: PlanWork | None,
    pace: Pace,
    *,
    pipelining: bool = True,
    max_sequences: int = MAX_SEQUENCES,
) -> Bound:
    """Schedule an answer.

    Args:
        parts: in the order of the plan, numbered from 1.
        plan: `None` if it is given, or there is none.
        pace: measured step times and prefill rate.
        pipelining: whether a part may start before the plan is complete.
        max_sequences: that decode side by side.
    """
    now, first_text = 0.0, 0.0
    running: list[_Sequence] = []
    finished: set[int] = set()
    started: set[int] = set()
    known = len(parts) if plan is None else 0
    if plan is not None:
        running.append(_Sequence(0, plan.prefill, plan.steps))
    forced = 0.0 if plan is None else (plan.tokens - plan.steps) / plan.steps
    while len(finished) < len(parts) or running:
        if pipelining or plan is None or not any(one.number == 0 for one in running):
            for number in range(1, known + 1):
                part = parts[number - 1]
                if (
                    number not in started
                    and finished >= set(part.dependencies)
                    and len(running) < max_sequences
                ):
                    started.add(number)
                    running.append(_Sequence(number, part.prefill, part.tokens))
        if not running:
            raise ValueError("the parts depend on each other in a circle")
        decoding = [one for one in running if one.prefill <= 0]
        prefilled, room = 0.0, float(PREFILL_CHUNK)
        advancing = list(decoding)
        for one in running:
            if one.prefill > 0 and room > 0:
                chunk = min(room, one.prefill)
                one.prefill -= chunk
                room -= chunk
                prefilled += chunk
                if one.prefill <= 0:
                    advancing.append(one)
        if any(one.number == 0 for one in decoding):
            prefilled += forced
        now += step_seconds(pace, len(decoding), 0) + prefilled / pace.prefill_tokens_per_s
        for one in advancing:
            one.done += 1
            if one.number == 1 and one.done == 1:
                first_text = now
            if one.number == 0 and plan is not None:
                known = sum(line <= one.done for line in plan.lines)
                if one.done >= one.steps:
                    known = len(parts)
            elif one.done >= one.steps:
                finished.add(one.number)
        running = [one for one in running if one.done < one.steps]
    return Bound(now, first_text)
