"""What can be said of answers without a judge: lengths, latencies, repetition, ends, titles."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import fmean, median
from typing import Any

from benchmarks.common.statistics import bootstrap
from benchmarks.quality.answers import Answer, Part, by_mode
from plato.runs import Mode

BASELINES = (Mode.SEQUENTIAL, Mode.SKELETON, Mode.PLATO, Mode.AUTO)
"""In every pair of modes the one that comes first here is what the other is compared with."""
TITLE_WORD_CHARS = 4
"""Shorter words say little about what a part is on, unless a title has no others."""

Trigram = tuple[str, str, str]


def words(text: str) -> list[str]:
    """The lower-cased words of a text."""
    return re.findall(r"\w+", text.lower())


def trigrams(text: str) -> list[Trigram]:
    """Every three words in a row."""
    found = words(text)
    return list(zip(found, found[1:], found[2:], strict=False))


def repetition(text: str) -> float:
    """The share of trigrams that stood in the text before; 0 without trigrams."""
    found = trigrams(text)
    return 1 - len(set(found)) / len(found) if found else 0.0


def cross_part_repetition(parts: Iterable[Part]) -> float:
    """The share of different trigrams that stand in two or more parts; 0 without trigrams."""
    counts = Counter(trigram for part in parts for trigram in set(trigrams(part.text)))
    return sum(count > 1 for count in counts.values()) / len(counts) if counts else 0.0


def covers_title(part: Part) -> bool:
    """Whether at least half of the title's words of four letters or more stand in the part."""
    title = set(words(part.title))
    title = {word for word in title if len(word) >= TITLE_WORD_CHARS} or title
    return 2 * len(title & set(words(part.text))) >= len(title)


def metrics(answers: Iterable[Answer]) -> dict[str, Any]:
    """For each pair of modes, over the questions with answers in both, and over those split."""
    modes = by_mode(answers)
    names = [mode.value for mode in BASELINES if mode.value in modes]
    found: dict[str, Any] = {}
    for base, mode in combinations(names, 2):
        pairs = [(modes[base][i], answer) for i, answer in modes[mode].items() if i in modes[base]]
        split = [
            pair for pair in pairs if all(each.split for each in pair if each.mode != "sequential")
        ]
        found[f"{mode}/{base}"] = {
            "questions": len(pairs),
            "split": len(split),
            "all": compare(pairs),
            "split_only": compare(split),
        }
    return found


def compare(pairs: Sequence[tuple[Answer, Answer]]) -> dict[str, Any]:
    """(base, other) for every question; nothing is said about no questions.

    `length_ratio`: tokens, other over base. `latency_ratio`: seconds, other over base, over the
    length ratio. Both are medians over questions with 95 % bootstrap intervals; `uncounted`
    questions, where an answer is empty or its server does not tell its tokens, are left out.
    `repetition_ratio`: mean repetition, other over base; None if base never repeats itself.
    """
    if not pairs:
        return {}
    bases, others = [base for base, _ in pairs], [other for _, other in pairs]
    counted = [(base, other) for base, other in pairs if base.tokens and other.tokens]
    lengths = [other.tokens / base.tokens for base, other in counted]
    latencies = [
        other.latency_s / base.latency_s / length
        for (base, other), length in zip(counted, lengths, strict=True)
    ]
    found: dict[str, Any] = {"questions": len(pairs), "uncounted": len(pairs) - len(counted)}
    for name, ratios in (("length_ratio", lengths), ("latency_ratio", latencies)):
        if ratios:
            found[name] = median(ratios)
            found[f"{name}_interval"] = bootstrap(ratios, median)
    of_base = fmean(repetition(answer.text) for answer in bases)
    of_other = fmean(repetition(answer.text) for answer in others)
    found["repetition_ratio"] = of_other / of_base if of_base else None
    found[bases[0].mode] = describe(bases)
    found[others[0].mode] = describe(others)
    return found


def describe(answers: Sequence[Answer]) -> dict[str, Any]:
    """One mode: means over answers, shares over parts; plans only where answers are split."""
    parts = [part for answer in answers for part in answer.parts]
    found: dict[str, Any] = {
        "tokens": fmean(answer.tokens for answer in answers),
        "repetition": fmean(repetition(answer.text) for answer in answers),
        "self_ended_share": fmean(part.finish == "stop" for part in parts),
    }
    split = [answer for answer in answers if answer.split]
    if split:
        planned = [part for answer in split for part in answer.parts]
        found |= {
            "parts": fmean(len(answer.parts) for answer in split),
            "cross_part_repetition": fmean(cross_part_repetition(each.parts) for each in split),
            "titles_covered": fmean(covers_title(part) for part in planned),
        }
    return found
