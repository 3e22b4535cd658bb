"""Plot of the engine benchmark: tokens per second by width."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

LABELS = {
    "auto": "Plato ({precision})",
    "float32": "Plato (float32)",
    "generate": "transformers generate (float32)",
    "generate_bfloat16": "transformers generate (bfloat16)",
    "paged": "transformers continuous batching (float32)",
}

PANELS = {"tokens_per_s": "prefill and decoding", "decode_tokens_per_s": "decoding alone"}
"""Column of the rows, and what it is called."""


def plot_speed(rows: Sequence[dict[str, Any]], precision: str, folder: Path) -> None:
    """Draw `engine.png` and `engine.svg` into `folder` from the rows of `measure_speed`.

    Raises `ModuleNotFoundError` where matplotlib is missing.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    widths = sorted({row["width"] for row in rows})
    for axes, (column, title) in zip(panels, PANELS.items(), strict=True):
        for engine, label in LABELS.items():
            points = sorted((r for r in rows if r["engine"] == engine), key=lambda r: r["width"])
            if points:
                axes.plot(
                    [row["width"] for row in points],
                    [row[column] for row in points],
                    marker="o",
                    label=label.format(precision=precision),
                )
        axes.set_title(title)
        axes.set_xscale("log", base=2)
        axes.set_xticks(widths, [str(width) for width in widths])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("sequences at the same time")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("output tokens per second, all sequences")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("png", "svg"):
        figure.savefig(folder / f"engine.{kind}", dpi=150)
    pyplot.close(figure)
