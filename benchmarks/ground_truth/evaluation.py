"""Accuracy by mode and complexity, and paired comparisons of modes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from benchmarks.common.statistics import bootstrap, mcnemar
from benchmarks.ground_truth.tasks import CONSISTENCY, Task, agreements
from plato.runs import Mode

Row = dict[str, Any]

MANY_DEPENDENCIES = 3
"""From here on, independent parts are expected to be clearly worse."""


def evaluate(tasks: Sequence[Task], rows: Sequence[Row]) -> dict[str, Any]:
    """All metrics, by kind of task; `rows` hold every task once in every mode.

    Shares are between 0 and 1, differences are of shares, intervals are of 95 %.
    """
    metrics: dict[str, Any] = {}
    for kind in dict.fromkeys(task.kind for task in tasks):
        modes: dict[str, list[Row]] = {}
        for row in rows:
            if row["kind"] == kind:
                modes.setdefault(row["mode"], []).append(row)
        for mode, of_mode in modes.items():
            name = f"{kind}_{mode}"
            metrics[f"{name}_accuracy"] = _accuracy(of_mode)
            metrics[f"{name}_accuracy_interval"] = bootstrap([r["correct"] for r in of_mode], fmean)
            for by in ("dependencies", "depth"):
                metrics[f"{name}_by_{by}"] = _by(by, of_mode)
            metrics[f"{name}_answered_as"] = dict(Counter(r["answered_as"] for r in of_mode))
        many = {
            mode: [row for row in of_mode if row["dependencies"] >= MANY_DEPENDENCIES]
            for mode, of_mode in modes.items()
        }
        for suffix, each in (("", modes), (f"_from_{MANY_DEPENDENCIES}_dependencies", many)):
            for first, second in combinations(each, 2):
                name = f"{kind}_{second}_minus_{first}{suffix}"
                metrics |= _compared(name, each[first], each[second])
        if kind == CONSISTENCY:
            metrics |= _chance([task for task in tasks if task.kind == kind], modes)
    return metrics


def _compared(name: str, first: Sequence[Row], second: Sequence[Row]) -> dict[str, Any]:
    """How `second` differs from `first` on the same tasks."""
    pairs = [(a["correct"], b["correct"]) for a, b in zip(first, second, strict=True)]
    if not pairs:
        return {}
    differences = [b - a for a, b in pairs]
    return {
        name: fmean(differences),
        f"{name}_interval": bootstrap(differences, fmean),
        f"{name}_mcnemar_p": mcnemar(pairs),
    }


def _chance(tasks: Sequence[Task], modes: dict[str, list[Row]]) -> dict[str, Any]:
    """How often parts agree that cannot see each other, and that can.

    `choices_agree` is of first parts of different tasks; `parts_agree` of the two parts of a
    dependency.
    """
    metrics: dict[str, Any] = {}
    for mode, rows in modes.items():
        choices = [row["values"][0] for row in rows]
        stated = Counter(choice for choice in choices if choice is not None)
        same = sum(count * (count - 1) for count in stated.values())
        metrics[f"{CONSISTENCY}_{mode}_choices"] = len(stated)
        metrics[f"{CONSISTENCY}_{mode}_choices_agree"] = same / max(1, len(rows) * (len(rows) - 1))
        pairs = zip(tasks, rows, strict=True)
        edges = [same for task, row in pairs for same in agreements(task.plan, row["values"])]
        metrics[f"{CONSISTENCY}_{mode}_parts_agree"] = fmean(edges) if edges else None
    if Mode.SKELETON in modes:
        metrics[f"{CONSISTENCY}_chance"] = metrics[f"{CONSISTENCY}_{Mode.SKELETON}_parts_agree"]
    return metrics


def _accuracy(rows: Iterable[Row]) -> float:
    return fmean(row["correct"] for row in rows)


def _by(name: str, rows: Sequence[Row]) -> dict[str, float]:
    """Accuracy for every value of a row's field; its keys are text, as in JSON."""
    values = sorted({row[name] for row in rows})
    return {str(value): _accuracy(r for r in rows if r[name] == value) for value in values}
