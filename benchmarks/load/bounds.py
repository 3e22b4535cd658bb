"""What a system gives with one question at a time, and with as many as fill it."""

from __future__ import annotations

import sys
from itertools import islice
from statistics import fmean

from benchmarks.answering.asking import Way
from benchmarks.load.arrivals import Arrival, arrivals
from benchmarks.load.driver import play, saturate
from benchmarks.load.outcomes import Outcome, Played
from benchmarks.load.systems import System

ByWay = dict[str, dict[str, float]]


async def measure_alone(system: System, count: int) -> ByWay:
    """Mean times of `count` questions with parts, one at a time; before, each way warms up.

    Raises `RuntimeError` if a question is not answered, as the next function does.
    """
    questions = [arrival.question for arrival in islice(arrivals(0, 1.0), count)]
    for way in system.ways:
        _answers(await saturate(system, way, questions[:2]), way)
    by_way: dict[str, list[Outcome]] = {way.name: [] for way in system.ways}
    for question in questions:
        for way in system.ways:
            by_way[way.name] += _answers(
                await play(system, way, [Arrival(0.0, question)], 1.0), way
            )
    return {
        name: {
            "latency_s": fmean(one.latency_s for one in outcomes),
            "first_text_s": fmean(one.first_text_s for one in outcomes),
            "token_s": fmean(one.token_s for one in outcomes),
        }
        for name, outcomes in by_way.items()
    }


async def measure_full(system: System, count: int, long_share: float) -> ByWay:
    """Answers and tokens a second of `count` questions, as many at a time as fill the system."""
    questions = [arrival.question for arrival in islice(arrivals(0, long_share), count)]
    found = {}
    for way in system.ways:
        played = await saturate(system, way, questions)
        each = fmean(one.tokens for one in _answers(played, way))
        per_s = played.tokens_per_s
        found[way.name] = {"requests_per_s": per_s / each, "tokens_per_s": per_s}
        sys.stderr.write(f"full, {way.name}: {per_s:.1f} tokens/s\n")
    return found


def _answers(played: Played, way: Way) -> tuple[Outcome, ...]:
    for outcome in played.outcomes:
        if not outcome.answered:
            why = outcome.failure or "refused; lower --at-once"
            raise RuntimeError(f"{outcome.question.name}, {way.name}: {why}")
    return played.outcomes
