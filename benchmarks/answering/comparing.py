"""Ratios between modes for the same questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.answering.asking import AUTO, GIVEN, PLATO, SEQUENTIAL, SKELETON, Way
from benchmarks.common.statistics import bootstrap, spread

VIAS = ("runtime", "embedded", "http")
"""In this process; over HTTP from one process; over HTTP from Ray Serve."""
CONCURRENCY = (4, 16)
"""Questions at a time, besides one."""


def metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the report, ratios within this run; medians over questions."""
    found: dict[str, Any] = {}
    for via in VIAS:
        for kind in ("independent", "mixed", "chain"):
            ratios = speedups(rows, via, PLATO, kind)
            suffix = "" if via == "http" else f"_{via}"
            if ratios:
                found[f"speedup_{kind}{suffix}"] = median(ratios)
                found[f"speedup_{kind}{suffix}_interval"] = bootstrap(ratios, median)
        ours = select(rows, via, PLATO)
        found[f"bound_share_{via}"] = median(row["bound_share"] for row in ours)
        found[f"bound_share_{via}_spread"] = spread([row["bound_share"] for row in ours])
    found["embedded_over_runtime"] = median(
        inside["latency_s"] / outside["latency_s"]
        for inside, outside in zip(
            select(rows, "runtime", PLATO), select(rows, "embedded", PLATO), strict=True
        )
    )
    found["first_text_bound_share"] = median(
        row["first_text_bound_share"] for row in select(rows, "http", PLATO)
    )
    found["bound_share_sequential"] = median(
        row["bound_share"] for row in select(rows, "runtime", SEQUENTIAL)
    )
    found["throughput_ratio_1"] = throughput(rows, 1, PLATO) / throughput(rows, 1, SEQUENTIAL)
    for concurrency in CONCURRENCY:
        found[f"throughput_ratio_{concurrency}"] = throughput(
            rows, concurrency, PLATO
        ) / throughput(rows, concurrency, SEQUENTIAL)
    ours = select(rows, "runtime", PLATO)
    found["cached_over_cacheable"] = sum(row["cached"] for row in ours) / sum(
        row["cacheable"] for row in ours
    )
    for way in (GIVEN, SKELETON):
        name = "given" if way is GIVEN else way.name
        ratios = speedups(rows, "runtime", way)
        found[f"speedup_{name}"] = median(ratios)
    for way in (SKELETON, PLATO, AUTO):
        pairs = paired(rows, "free", way)
        if pairs:
            found[f"free_latency_ratio_{way.name}"] = median(
                theirs["latency_s"] / ours["latency_s"] for theirs, ours in pairs
            )
            found[f"free_rate_ratio_{way.name}"] = median(
                ours["tokens_per_s"] / theirs["tokens_per_s"] for theirs, ours in pairs
            )
    return found


def select(
    rows: Sequence[dict[str, Any]], via: str, way: Way, concurrency: int = 1
) -> list[dict[str, Any]]:
    """The rows of one way."""
    return [
        row
        for row in rows
        if (row["via"], row["way"], row["concurrency"]) == (via, way.name, concurrency)
    ]


def paired(
    rows: Sequence[dict[str, Any]], via: str, way: Way
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(sequential, this way) for every question, in order of repeats."""
    theirs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in select(rows, via, SEQUENTIAL):
        theirs[row["question"]].append(row)
    return [(theirs[row["question"]].pop(0), row) for row in select(rows, via, way)]


def speedups(
    rows: Sequence[dict[str, Any]], via: str, way: Way, kind: str | None = None
) -> list[float]:
    """Sequential's latency over this way's, for every question (of a kind)."""
    return [
        theirs["latency_s"] / ours["latency_s"]
        for theirs, ours in paired(rows, via, way)
        if kind in (None, ours["kind"])
    ]


def throughput(rows: Sequence[dict[str, Any]], concurrency: int, way: Way) -> float:
    """Answer tokens a second of all questions that were asked over HTTP at a concurrency."""
    found = select(rows, "http", way, concurrency)
    tokens = sum(row["tokens"] for row in found)
    if concurrency == 1:
        return float(tokens / sum(row["latency_s"] for row in found))
    return float(tokens / found[0]["makespan_s"])
