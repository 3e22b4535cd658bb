"""What arrives, and when."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.answering.questions import Question
from benchmarks.common.workload import fixed_graphs
from benchmarks.worst_case import UNSPLIT
from plato.runs import Node

SHORT = "short"
"""Kind of the questions that nobody would split."""
SHORT_TOKENS = 48
SCALE = 0.5
"""Of the workload's lengths: many answers matter more than long ones."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A question, and when it is asked."""

    at: float
    """Since the first one, in mean times between two."""
    question: Question


def arrivals(seed: int, long_share: float) -> Iterator[Arrival]:
    """An endless Poisson process: the same for the same seed, at whatever rate it is played.

    `long_share` of the questions have the plans of the fixed workload, evenly mixed with short ones
    without parts. Chains are left out: splitting them gains nothing.
    """
    chance = random.Random(seed)
    long = _endless(
        chance, [Question.of(graph, SCALE) for graph in fixed_graphs() if graph.kind != "chain"]
    )
    short = _endless(chance, short_questions())
    at = 0.0
    for number in itertools.count():
        is_long = int((number + 1) * long_share) > int(number * long_share)
        yield Arrival(at, next(long if is_long else short))
        at += chance.expovariate(1.0)


def is_short(question: Question) -> bool:
    """Whether every way answers it sequentially."""
    return question.kind == SHORT


def short_questions() -> list[Question]:
    """Questions for one short text each, of exactly `SHORT_TOKENS`."""
    return [
        Question(f"short-{number}", SHORT, text, (Node(1, "Answer", (), SHORT_TOKENS),))
        for number, text in enumerate(UNSPLIT)
    ]


def _endless(chance: random.Random, questions: Sequence[Question]) -> Iterator[Question]:
    """All of them in a random order, again and again."""
    return itertools.cycle(chance.sample(questions, len(questions)))
