"""Plots of the report, from the rows of the benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

Rows = Sequence[dict[str, Any]]

COLOURS = {"sequential": "#8c8c8c", "plato": "#1f77b4", "auto": "#d62728", "bound": "#111111"}
KINDS = ("independent", "mixed", "chain")


def plot_answers(rows: Rows, folder: Path) -> None:
    """Draw `answers.*`: every question's latency over HTTP, next to its bound; and throughput.

    Raises `ModuleNotFoundError` where matplotlib is missing, as all functions here do.
    """
    pyplot = _pyplot()
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(11, 4.8), layout="constrained", width_ratios=(3, 1)
    )
    single = [row for row in rows if row["via"] == "http" and row["concurrency"] == 1]
    order = sorted(
        {(KINDS.index(row["kind"]), row["question"]) for row in single if row["kind"] in KINDS}
    )
    for offset, way in ((-0.2, "sequential"), (0.2, "plato")):
        places, seconds, bounds = [], [], []
        for place, (_, question) in enumerate(order):
            found = [r for r in single if (r["question"], r["way"]) == (question, way)]
            places.append(place + offset)
            seconds.append(median(row["latency_s"] for row in found))
            bounds.append(median(row["bound_s"] for row in found))
        left.bar(places, seconds, 0.4, label=way, color=COLOURS[way])
        label = "bound: the engine alone" if way == "plato" else None
        left.hlines(
            bounds,
            [place - 0.2 for place in places],
            [place + 0.2 for place in places],
            color=COLOURS["bound"],
            label=label,
        )
    left.set_xticks(
        range(len(order)),
        [f"{name}\n({KINDS[kind]})" for kind, name in order],
        rotation=60,
        ha="right",
        fontsize=8,
    )
    left.set_ylabel("seconds to the whole answer")
    left.set_ylim(top=1.2 * left.get_ylim()[1])  # Room for the legend.
    left.set_title("one at a time, same plan and lengths, over HTTP")
    left.legend()
    for way in ("sequential", "plato"):
        points = [
            (concurrency, _rate(rows, way, concurrency))
            for concurrency in sorted({r["concurrency"] for r in rows if r["via"] == "http"})
        ]
        right.plot(*zip(*points, strict=True), marker="o", label=way, color=COLOURS[way])
    right.set_xscale("log", base=2)
    right.set_xticks([1, 4, 16], ["1", "4", "16"])
    right.set_ylim(bottom=0)
    right.set_xlabel("questions at a time")
    right.set_ylabel("answer tokens per second")
    right.set_title("throughput")
    for axes in (left, right):
        axes.grid(alpha=0.3, axis="y")
    _save(figure, folder, "answers")


def plot_ablations(metrics: dict[str, Any], folder: Path) -> None:
    """Draw `ablations.*`: how much slower answers are without each part."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(7, 3.4), layout="constrained")
    bars = {
        "without pipelining": metrics["pipelining_gain"],
        "without forced tokens": metrics["forced_tokens_gain"],
        "without priority": metrics["priority_gain"],
        "without reuse": metrics["reuse_gain"],
        "without reuse, 512-token question": metrics["reuse_gain_512"],
        "without reuse, 4,096-token question": metrics["reuse_gain_4096"],
        **{
            f"at most {width} at a time": metrics[f"width_{width}_slowdown"]
            for width in (8, 4, 2, 1)
        },
    }
    names = list(bars)[::-1]
    axes.barh(names, [bars[name] for name in names], color=COLOURS["plato"])
    axes.axvline(1, color=COLOURS["bound"], linewidth=1)
    axes.set_xlabel("latency over that with all parts")
    axes.grid(alpha=0.3, axis="x")
    _save(figure, folder, "ablations")


def plot_load(rows: Rows, folder: Path, name: str) -> None:
    """Draw `name.*`: what each way gives by the rate of questions; bars from seed to seed."""
    pyplot = _pyplot()
    figure, panels = pyplot.subplots(2, 3, figsize=(11, 6), layout="constrained")
    columns = {
        "tokens_per_s": "answer tokens per second",
        "goodput_1_per_s": "questions per second within the targets",
        "latency_p50_s": "latency, median, s",
        "latency_p99_s": "latency, p99, s",
        "first_text_p99_s": "time to first text, p99, s",
        "sequential_latency_p99_s": "latency of short questions, p99, s",
    }
    rates = sorted({row["rate"] for row in rows})
    for axes, (column, title) in zip(panels.flat, columns.items(), strict=True):
        for way in dict.fromkeys(row["way"] for row in rows):
            by_rate = {
                rate: values for rate in rates if (values := _values(rows, rate, way, column))
            }
            means = [fmean(values) for values in by_rate.values()]
            below = [
                mean - min(values) for mean, values in zip(means, by_rate.values(), strict=True)
            ]
            above = [
                max(values) - mean for mean, values in zip(means, by_rate.values(), strict=True)
            ]
            axes.errorbar(
                list(by_rate), means, (below, above), marker="o", label=way, color=COLOURS[way]
            )
        axes.set_title(title, fontsize=10)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    for axes in panels[1]:
        axes.set_xlabel("questions per second over the capacity")
    panels[0][0].legend()
    _save(figure, folder, name)


def _values(rows: Rows, rate: float, way: str, column: str) -> list[float]:
    """Of all seeds."""
    return [
        row[column]
        for row in rows
        if (row["rate"], row["way"]) == (rate, way) and row[column] is not None
    ]


def _rate(rows: Rows, way: str, concurrency: int) -> float:
    found = [
        row
        for row in rows
        if (row["via"], row["way"], row["concurrency"]) == ("http", way, concurrency)
    ]
    tokens = sum(row["tokens"] for row in found)
    seconds = found[0].get("makespan_s") or sum(row["latency_s"] for row in found)
    return float(tokens / seconds)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("png", "svg"):
        figure.savefig(folder / f"{name}.{kind}", dpi=150, metadata=_UNDATED.get(kind))
    _pyplot().close(figure)


_UNDATED = {"svg": {"Date": None}}
