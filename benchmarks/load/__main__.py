"""What does each way of answering give under load, and what does it cost others?

    python -m benchmarks.load [--quick] [--json FILE] [--paced DECODERS | --url URL [--model NAME]]

Questions arrive as a Poisson process, whether or not earlier ones are answered, at 0.2 to 2 times
the capacity: what the best way answers when as many at a time as fill the system are asked. The
same questions at the same times for every way, one way after the other at every rate, for every
seed; the next measurement starts when the last answer of one has ended. Half of the questions are
short and always answered sequentially, the others have plans of the fixed workload, with equal
lengths in all ways. Every question has its own tenant.

An answer is good if its first text comes in time, and its tokens as fast as the targets say, which
are relative to a sequential answer alone.

By default an engine in this process is measured, with `--paced` several that sleep for the step
times of a model of 8B on a GPU (the stored report of `benchmarks.gpu`), with `--url` a server:
Plato's needs the settings `equal_work=true` and `split_threshold=1`, another one answers
sequentially only. Its key is in PLATO_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.answering.asking import SEQUENTIAL
from benchmarks.common.report import Report, arguments
from benchmarks.load.arrivals import arrivals
from benchmarks.load.bounds import measure_alone, measure_full
from benchmarks.load.driver import play
from benchmarks.load.metrics import COLUMNS, Row, Targets, mean_row, metrics, row
from benchmarks.load.systems import System, in_process, paced, served, settings_of
from plato.errors import PlatoError


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rates: tuple[float, ...]
    """Relative to the capacity."""
    seeds: int
    window_s: float
    """In which questions arrive."""
    alone: int
    """Questions that are asked one at a time."""
    fills: int
    """How often the system is filled to measure its capacity."""


FULL = Size((0.2, 0.5, 0.8, 1.0, 1.2, 2.0), seeds=3, window_s=8.0, alone=4, fills=3)
QUICK = Size((0.5, 1.0, 2.0), seeds=1, window_s=5.0, alone=2, fills=2)
AT_ONCE = 16


def main() -> None:
    """Run the benchmark."""
    options = read_options()
    try:
        report = asyncio.run(measure(options))
    except (RuntimeError, PlatoError, httpx.HTTPError) as error:
        sys.exit(f"benchmarks.load: {error}")
    show(report.rows)
    report.write(options.json)
    sys.exit(bool(report.metrics["failed"]))


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = arguments("load", __doc__ or "")
    system = parser.add_mutually_exclusive_group()
    system.add_argument("--paced", type=int, metavar="DECODERS", help="engines that only sleep")
    system.add_argument("--url", help="an OpenAI-compatible server")
    parser.add_argument("--model", help="of the server; default: its first one")
    parser.add_argument(
        "--at-once", type=int, default=AT_ONCE, help="questions at a time that fill the server"
    )
    parser.add_argument("--rates", type=float, nargs="+", help="relative to the capacity")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--window", type=float, help="seconds in which questions arrive")
    parser.add_argument(
        "--long", type=float, default=0.5, help="share of the questions with parts, 0 to 1"
    )
    parser.add_argument("--first-text-s", type=float, default=1.0, help="target for goodput")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    options.size = replace(
        size,
        rates=tuple(options.rates or size.rates),
        seeds=options.seeds or size.seeds,
        window_s=options.window or size.window_s,
    )
    numbers = (options.paced, options.at_once, options.seeds, options.window)
    if any(n is not None and n <= 0 for n in (*numbers, options.first_text_s, *options.size.rates)):
        parser.error("numbers must be above 0")
    if not 0 <= options.long <= 1:
        parser.error("--long must be between 0 and 1")
    return options


def open_system(options: argparse.Namespace) -> AbstractAsyncContextManager[System]:
    """What the options name."""
    if options.url:
        return served(options.url, options.model, options.at_once)
    return in_process(paced(options.paced) if options.paced else settings_of())


async def measure(options: argparse.Namespace) -> Report:
    """All measurements. Raises `RuntimeError` if the system does not answer as it must."""
    size: Size = options.size
    async with open_system(options) as system:
        alone = await measure_alone(system, size.alone)
        full = await measure_full(system, size.fills * system.at_once, options.long)
        per_s = max(found["requests_per_s"] for found in full.values())
        targets = Targets(options.first_text_s, alone[SEQUENTIAL.name]["token_s"])
        rows = []
        for seed in range(size.seeds):
            # Another order for each seed: whatever drifts meets every way and rate.
            chance = random.Random(seed)
            for rate in chance.sample(size.rates, len(size.rates)):
                count = max(2, round(size.window_s * rate * per_s))
                asked = list(islice(arrivals(seed, options.long), count))
                for way in chance.sample(system.ways, len(system.ways)):
                    played = await play(system, way, asked, rate * per_s)
                    rows.append(row(seed, rate, way.name, played, targets))
                    _say(rows[-1])
    return Report(
        "load",
        system.model,
        {
            "quick": options.quick,
            "system": options.url or (f"{options.paced} paced" if options.paced else "runtime"),
            "seeds": size.seeds,
            "window_s": size.window_s,
            "long_share": options.long,
            "at_once": system.at_once,
            "first_text_target_s": options.first_text_s,
            "token_alone_s": targets.alone_s,
        },
        metrics={"alone": alone, "full": full, **metrics(rows)},
        rows=rows,
    )


def _say(one: Row) -> None:
    sys.stderr.write(
        "seed {seed}, rate {rate:g}, {way}: {questions} questions, {tokens_per_s:.1f} tokens/s, "
        "{goodput_1_per_s:.2f} good/s\n".format(**one)
    )


def show(rows: Sequence[Row]) -> None:
    """Print means over the seeds."""
    table = Table(title="under load: means over the seeds")
    for name in ("rate", "way"):
        table.add_column(name)
    for name in COLUMNS:
        table.add_column(name.removesuffix("_s").replace("_", " "), justify="right")
    for rate, way in sorted({(one["rate"], one["way"]) for one in rows}):
        means: dict[str, Any] = mean_row(rows, rate, way)
        cells = ("" if mean is None else f"{mean:.3g}" for mean in means.values())
        table.add_row(f"{rate:g}", way, *cells)
    Console(width=190).print(table)


if __name__ == "__main__":
    main()
