"""Is the engine correct, and how fast is it compared with transformers?

    python -m benchmarks.engine [--quick] [--only PART ...] [--json FILE] [--plots FOLDER]

Every result is a ratio or a median within one run on this machine. `auto` is the precision that the
engine selects by default (int8 on a CPU with fast byte multiplication). Nothing else should run on
the machine at the same time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import transformers
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.common.report import RESULTS, Report, arguments
from benchmarks.engine.harness import Workbench
from benchmarks.engine.plot import plot_speed
from benchmarks.engine.profile import measure_grammar, measure_profile
from benchmarks.engine.quality import measure_exactness, measure_perplexity
from benchmarks.engine.sharing import measure_fork
from benchmarks.engine.speed import measure_prefill, measure_speed
from plato.models import resolve_model
from plato.settings import Settings

Part = Callable[[Workbench], tuple[dict[str, Any], list[dict[str, Any]]]]
"""Gives metrics, and rows of one kind."""

PARTS: dict[str, Part] = {
    "exactness": measure_exactness,
    "perplexity": measure_perplexity,
    "speed": measure_speed,
    "prefill": measure_prefill,
    "fork": measure_fork,
    "grammar": measure_grammar,
    "profile": measure_profile,
}
WIDE = 160


def main() -> None:
    """Run the benchmark."""
    parser = arguments("engine", __doc__ or "")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--plots", type=Path, default=RESULTS, help="folder for the plot")
    options = parser.parse_args()

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    settings = Settings()
    folder = resolve_model(settings.model, settings.cache_dir)
    bench = Workbench(folder, quick=options.quick)
    report = Report(
        "engine",
        settings.model_name,
        {"quick": options.quick, "precision": bench.model("auto").precision},
    )
    seconds: dict[str, float] = {}
    for name, part in PARTS.items():
        if options.only and name not in options.only:
            continue
        sys.stderr.write(f"{name}\n")
        start = time.perf_counter()
        metrics, rows = part(bench)
        seconds[name] = round(time.perf_counter() - start, 1)
        report.metrics |= metrics
        report.rows.extend({"part": name, **row} for row in rows)
        show(name, rows)
        if name == "speed" and not options.quick:
            draw(rows, bench, options.plots)
    report.settings["seconds"] = seconds
    report.write(options.json)


def show(name: str, rows: Iterable[dict[str, Any]]) -> None:
    """Print the rows of one part."""
    table = Table(title=name, box=SIMPLE)
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    # A file or a pipe has no width; the table must not be cut to a guess of one.
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def draw(rows: list[dict[str, Any]], bench: Workbench, folder: Path) -> None:
    """Plot the speeds, or say what is missing for it."""
    try:
        plot_speed(rows, bench.model("auto").precision, folder)
    except ModuleNotFoundError as error:
        sys.stderr.write(f"no plot: {error}; pip install 'plato-serve[benchmark]'\n")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
