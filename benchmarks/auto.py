"""Does `auto` split the questions that people would split?

    python -m benchmarks.auto --questions vicuna80.jsonl --labels vicuna80_router.csv

Answers every question in mode `auto` and compares the model's decision with human labels. The
threshold is calibrated on the odd-numbered questions and evaluated on the others; a false split
costs twice a missed one. Questions are JSON lines with `turns` (FastChat) or `question`; labels are
`label;request` with 1 for a question fit for parallel points (Skeleton-of-Thought).
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.answering.questions import label_of, read_labels, read_questions
from benchmarks.common.report import Report, arguments
from benchmarks.common.workload import SHARED_DATA
from plato.errors import PlatoError
from plato.runtime import Runtime
from plato.settings import Settings

FALSE_SPLIT_COST = 2.0
MISSED_SPLIT_COST = 1.0


@dataclass(frozen=True, slots=True)
class Decision:
    """The model's probability of not splitting, and what people say."""

    one_probability: float
    fit: bool


def cost(decisions: Sequence[Decision], threshold: float) -> float:
    """What the wrong decisions cost: the model splits below or at `threshold`."""
    total = 0.0
    for decision in decisions:
        split = decision.one_probability <= threshold
        if split and not decision.fit:
            total += FALSE_SPLIT_COST
        elif not split and decision.fit:
            total += MISSED_SPLIT_COST
    return total


def calibrate(decisions: Sequence[Decision]) -> float:
    """The cheapest threshold: in log odds, the middle of the cheapest gap between two questions.

    Of equally cheap gaps the widest: it is the one that other questions disturb least.
    """
    odds = sorted({log_odds(decision.one_probability) for decision in decisions})
    gaps = [
        (cost(decisions, probability((low + high) / 2)), low - high, (low + high) / 2)
        for low, high in pairwise(odds)
    ]
    return probability(min(gaps)[2])


def area_under_curve(decisions: Sequence[Decision]) -> float:
    """The chance that a fit question gets a lower probability of `[ONE]` than an unfit one."""
    fit = [d.one_probability for d in decisions if d.fit]
    unfit = [d.one_probability for d in decisions if not d.fit]
    wins = sum((f < u) + 0.5 * (f == u) for f in fit for u in unfit)
    return wins / (len(fit) * len(unfit))


def log_odds(chance: float) -> float:
    """The logit of a probability, kept finite."""
    chance = min(max(chance, 1e-12), 1 - 1e-12)
    return math.log(chance / (1 - chance))


def probability(odds: float) -> float:
    """The inverse of `log_odds`."""
    return 1 / (1 + math.exp(-odds))


async def ask_all(
    settings: Settings, questions: Sequence[str], max_tokens: int
) -> list[dict[str, Any]]:
    """Answer every question in mode `auto`, one after the other."""
    rows: list[dict[str, Any]] = []
    async with await Runtime.open(settings) as runtime:
        for number, question in enumerate(questions, start=1):
            try:
                answer = await runtime.ask(question, max_tokens=max_tokens)
            except PlatoError as error:
                rows.append({"question": question, "error": error.message})
                continue
            report = answer.report
            rows.append(
                {
                    "question": question,
                    "mode": report.mode.value,
                    "reason": report.reason,
                    "parts": len(report.nodes),
                    "titles": [node.title for node in report.nodes],
                    "one_probability": report.plan.one_probability,
                    "decision_s": report.nodes[0].planned_s,
                    "duration_s": report.duration_s,
                    "tokens": answer.tokens,
                }
            )
            sys.stderr.write(f"\r{number}/{len(questions)}")
    sys.stderr.write("\n")
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = arguments("auto", __doc__ or "")
    parser.add_argument("--questions", type=Path, default=SHARED_DATA / "vicuna80.jsonl")
    parser.add_argument("--labels", type=Path, default=SHARED_DATA / "vicuna80_router.csv")
    parser.add_argument("--max-tokens", type=int, default=64, help="of every answer")
    options = parser.parse_args()
    questions = read_questions(options.questions)[: 16 if options.quick else None]
    by_text = read_labels(options.labels)
    labels = [label_of(question, by_text) for question in questions]
    settings = Settings()
    texts = [question.text for question in questions]
    rows = asyncio.run(ask_all(settings, texts, options.max_tokens))
    report = Report("auto", settings.model_name, settings.model_dump(), rows=rows)
    report.metrics = evaluate(rows, labels, settings.split_threshold)
    report.write(options.json)


def evaluate(
    rows: Sequence[dict[str, Any]], labels: Sequence[bool], threshold: float
) -> dict[str, Any]:
    """The metrics of all answers."""
    decided = [
        (index, Decision(row["one_probability"], labels[index]))
        for index, row in enumerate(rows)
        if row.get("one_probability") is not None
    ]
    calibration = [decision for index, decision in decided if index % 2 == 0]
    held_out = [decision for index, decision in decided if index % 2 == 1]
    chosen = calibrate(calibration)
    reasons = Counter(
        str(row.get("reason")).partition(" (")[0] for row in rows if row.get("mode") == "sequential"
    )
    metrics: dict[str, Any] = {
        "questions": len(rows),
        "errors": sum("error" in row for row in rows),
        "split": sum(row.get("mode") == "plato" for row in rows),
        "not_split_because": dict(reasons),
        "auc_calibration": area_under_curve(calibration),
        "auc_held_out": area_under_curve(held_out),
        "calibrated_threshold": chosen,
        "settings_threshold": threshold,
        "median_decision_s": sorted(row.get("decision_s", 0.0) for row in rows)[len(rows) // 2],
    }
    for name, limit in (("calibrated", chosen), ("settings", threshold)):
        for half, decisions in (("calibration", calibration), ("held_out", held_out)):
            splits = [d for d in decisions if d.one_probability <= limit]
            metrics[f"{name}_{half}_split"] = len(splits)
            metrics[f"{name}_{half}_false"] = sum(not d.fit for d in splits)
            metrics[f"{name}_{half}_missed"] = sum(
                d.fit and d.one_probability > limit for d in decisions
            )
    return metrics


if __name__ == "__main__":
    main()
