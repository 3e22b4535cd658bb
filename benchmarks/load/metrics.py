"""Rows and figures of measurements under load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import Any

from benchmarks.answering.asking import AUTO, PLATO, SEQUENTIAL
from benchmarks.common.statistics import bootstrap, percentile
from benchmarks.load.outcomes import Outcome, Played

Row = Mapping[str, Any]
SLACKS = (0.5, 1.0, 2.0)
"""Targets for the time per token of answers with parts, over that of a sequential answer alone:
below 1 only parts side by side can keep them."""
SHORT_SLACK = 2.0
"""The target for short answers, which no way can make faster than alone."""
GOODPUT = {f"goodput_{slack:g}_per_s": slack for slack in SLACKS}
COLUMNS = (
    *("questions", "refused", "failed", "planned"),
    *("latency_p50_s", "latency_p99_s", "first_text_p50_s", "first_text_p99_s"),
    *("token_p50_s", "token_p99_s", "sequential_latency_p50_s", "sequential_latency_p99_s"),
    *GOODPUT,
    "tokens_per_s",
)
"""Of the table."""
OVER_BEST = {
    "throughput_over_best": "tokens_per_s",
    **{f"goodput_over_best_{slack:g}": column for column, slack in GOODPUT.items()},
}
"""`auto` over the better of the two other ways, by column."""
SEQUENTIAL_P99 = "sequential_p99_ratio"
"""The p99 latency of short questions beside what `auto` plans over that beside sequential ones."""
RATIOS = (*OVER_BEST, SEQUENTIAL_P99)


@dataclass(frozen=True, slots=True)
class Targets:
    """What an answer must keep to count for goodput."""

    first_text_s: float
    alone_s: float
    """Time per token of a sequential answer alone, after the first text."""

    def met(self, outcome: Outcome, slack: float) -> bool:
        """Whether an answer keeps them; one that there is not does not."""
        longest_s = (SHORT_SLACK if outcome.short else slack) * self.alone_s
        return (
            outcome.answered
            and outcome.first_text_s <= self.first_text_s
            and outcome.token_s <= longest_s
        )


def row(seed: int, rate: float, way: str, played: Played, targets: Targets) -> dict[str, Any]:
    """One measurement; `rate` is relative to the capacity. Percentiles are of complete answers."""
    outcomes, window_s = played.outcomes, played.window_s
    answers = [one for one in outcomes if one.answered]
    short = [one for one in answers if one.short]
    return {
        "seed": seed,
        "rate": rate,
        "way": way,
        "questions": len(outcomes),
        "refused": sum(one.refused for one in outcomes),
        "failed": sum(one.failure is not None for one in outcomes),
        "planned": sum(one.planned for one in answers),
        "window_s": window_s,
        "makespan_s": played.makespan_s,
        "tokens": sum(one.tokens for one in answers),
        "tokens_per_s": played.tokens_per_s,
        **{
            column: sum(targets.met(one, slack) for one in outcomes) / window_s
            for column, slack in GOODPUT.items()
        },
        **_percentiles("latency", [one.latency_s for one in answers]),
        **_percentiles("first_text", [one.first_text_s for one in answers]),
        **_percentiles("token", [one.token_s for one in answers]),
        **_percentiles("sequential_latency", [one.latency_s for one in short]),
        "late_p99_s": percentile([one.late_s for one in outcomes], 0.99),
        "cpu_share": played.cpu_share,
    }


def _percentiles(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """Median and p99; of nothing, None."""
    return {
        f"{name}_{label}_s": percentile(values, share) if values else None
        for label, share in (("p50", 0.5), ("p99", 0.99))
    }


def metrics(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of the report, by rate: ratios of means over the seeds, with 95 % intervals.

    The better of the other two ways is the one with the higher mean over the seeds.
    """
    found: dict[str, Any] = {
        "cpu_share": max(row["cpu_share"] for row in rows),
        "late_p99_s": max(row["late_p99_s"] for row in rows),
        "refused": sum(row["refused"] for row in rows),
        "failed": sum(row["failed"] for row in rows),
    }
    if not any(row["way"] == AUTO.name for row in rows):
        return found
    for name in RATIOS:
        found[name], found[f"{name}_interval"] = {}, {}
    for rate in sorted({row["rate"] for row in rows}):
        compared = {name: _over_best(rows, rate, column) for name, column in OVER_BEST.items()}
        compared[SEQUENTIAL_P99] = _pairs(rows, rate, SEQUENTIAL.name, "sequential_latency_p99_s")
        for name, pairs in compared.items():
            found[name][f"{rate:g}"] = _finite(ratio_of_means(pairs))
            low, high = bootstrap(pairs, ratio_of_means)
            found[f"{name}_interval"][f"{rate:g}"] = _finite(low), _finite(high)
    return found


def ratio_of_means(pairs: Sequence[tuple[float | None, float | None]]) -> float:
    """Mean of the first over that of the second; infinite where there is nothing to divide by."""
    known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
    theirs = sum(other for _, other in known)
    return sum(own for own, _ in known) / theirs if theirs else float("inf")


def mean_row(rows: Sequence[Row], rate: float, way: str) -> dict[str, float | None]:
    """Means over the seeds of the table's columns."""
    chosen = [row for row in rows if (row["rate"], row["way"]) == (rate, way)]
    means: dict[str, float | None] = {}
    for column in COLUMNS:
        values = [row[column] for row in chosen if row[column] is not None]
        means[column] = fmean(values) if values else None
    return means


def _over_best(rows: Sequence[Row], rate: float, column: str) -> list[tuple[Any, Any]]:
    best = max(
        (SEQUENTIAL.name, PLATO.name), key=lambda way: mean_row(rows, rate, way)[column] or 0.0
    )
    return _pairs(rows, rate, best, column)


def _pairs(rows: Sequence[Row], rate: float, other: str, column: str) -> list[tuple[Any, Any]]:
    """(`auto`, the other way) for every seed."""
    by = {(row["seed"], row["way"]): row[column] for row in rows if row["rate"] == rate}
    seeds = sorted({seed for seed, _ in by})
    return [(by[seed, AUTO.name], by[seed, other]) for seed in seeds]


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if isfinite(value) else None
