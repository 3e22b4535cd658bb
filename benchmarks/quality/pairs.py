"""Blinded pairs for human or other judges, their verdicts, and what survives the swap."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator

from benchmarks.common.rows import InputError
from benchmarks.quality.answers import Answer
from benchmarks.quality.metrics import words

Form = Literal["1>>2", "1>2", "1=2", "2>1", "2>>1"]
"""Arena-Hard's five verdicts (arXiv 2406.11939)."""
FAVOURS: dict[Form, int] = {"1>>2": 1, "1>2": 1, "1=2": 0, "2>1": -1, "2>>1": -1}
"""1 where answer 1 is better, -1 where answer 2 is."""
_VERDICT = re.compile(r"\[\[\s*([12])\s*(>>|>|=)\s*([12])\s*\]\]")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers in one order, and nothing that tells whose they are."""

    pair: str
    question: str
    answer_1: str
    answer_2: str


@dataclass(frozen=True, slots=True)
class Key:
    """What a pair hides; every question has two, one for each order."""

    pair: str
    id: str
    """Of the question."""
    category: str
    model: str
    mode: str
    """The mode whose wins are counted."""
    model_against: str
    mode_against: str
    side: Literal[1, 2]
    """Where the answer of `mode` is."""
    words: int
    """Length of the answer of `mode`; words count the same for every tokenizer."""
    words_against: int


def _plain(verdict: object) -> object:
    return re.sub(r"[\s\[\]]", "", verdict) if isinstance(verdict, str) else verdict


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's verdict on one pair; None if the judge gave none."""

    pair: str
    verdict: Annotated[Literal["1>>2", "1>2", "1=2", "2>1", "2>>1"] | None, BeforeValidator(_plain)]
    reply: str = ""
    """All that the judge said, or why there is no verdict."""


def find_verdict(reply: str) -> Form | None:
    """The verdict in `[[...]]` in a judge's reply; None without one, and where several differ."""
    found = {"".join(match) for match in _VERDICT.findall(reply)}
    found = {"1=2" if verdict == "2=1" else verdict for verdict in found}
    return next((verdict for verdict in FAVOURS if found == {verdict}), None)


def blind(
    answers: Mapping[str, Answer], against: Mapping[str, Answer], seed: int
) -> tuple[list[Pair], list[Key]]:
    """Both orders of the answers to every question that both have, in a seeded random order.

    Pairs are numbered in that order, so that their ids tell nothing either.
    """
    sides: tuple[Literal[1, 2], ...] = (1, 2)
    rows = [
        (ours, against[question], side)
        for question, ours in answers.items()
        if question in against
        for side in sides
    ]
    random.Random(seed).shuffle(rows)
    pairs, keys = [], []
    for number, (ours, theirs, side) in enumerate(rows, start=1):
        first, second = (ours, theirs) if side == 1 else (theirs, ours)
        pairs.append(Pair(str(number), ours.question, first.text, second.text))
        keys.append(
            Key(
                pair=str(number),
                id=ours.id,
                category=ours.category,
                model=ours.model,
                mode=ours.mode,
                model_against=theirs.model,
                mode_against=theirs.mode,
                side=side,
                words=len(words(ours.text)),
                words_against=len(words(theirs.text)),
            )
        )
    return pairs, keys


class Outcome(StrEnum):
    """What one judge's two verdicts on a question say of the mode whose wins are counted."""

    WIN = "wins"
    LOSS = "losses"
    TIE = "ties"
    INCONSISTENT = "inconsistent"
    """The two orders disagree: neither a win nor a loss."""
    UNJUDGED = "unjudged"
    """A verdict is missing."""


def outcomes(keys: Iterable[Key], verdicts: Sequence[Verdict]) -> dict[str, Outcome]:
    """One judge's outcome of every question: only what survives the swap is a win or a loss.

    Raises `InputError` if a verdict is on an unknown pair, or a pair has two.
    """
    given: dict[str, Verdict] = {}
    for verdict in verdicts:
        if verdict.pair in given:
            raise InputError(
                f"there are two verdicts on pair {verdict.pair}; give each judge a file of its own"
            )
        given[verdict.pair] = verdict
    favours: dict[str, list[int | None]] = {}
    for key in keys:
        told = given.pop(key.pair, None)
        of_side = 1 if key.side == 1 else -1
        favours.setdefault(key.id, []).append(
            None if told is None or told.verdict is None else of_side * FAVOURS[told.verdict]
        )
    if given:
        raise InputError(f"the key has no pair {next(iter(given))}; verdicts are on other pairs")
    return {question: _outcome(found) for question, found in favours.items()}


def _outcome(favours: Sequence[int | None]) -> Outcome:
    """Of the two orders: 1 for the mode whose wins are counted, -1 against it."""
    if None in favours:
        return Outcome.UNJUDGED
    if len(set(favours)) > 1:
        return Outcome.INCONSISTENT
    return {1: Outcome.WIN, -1: Outcome.LOSS, 0: Outcome.TIE}[favours[0] or 0]
