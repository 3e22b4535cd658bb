"""What does each way of answering give under load, and what does it cost others?

    python -m benchmarks.load [--quick] [--json FILE] [--paced DECODERS | --url URL [--model NAME]]

Questions arrive as a Poisson process, whether or not earlier ones are answered, at 0.2 to 2 times
the capacity: what the best way answers when as many at a time as fill the system are asked. The
same questions at the same times for every way, one way after the other at every rate, for every
seed; the next measurement starts when the last answer of one has ended. Half of the questions are
short and always answered sequentially, the others have plans of the fixed workload, with equal
lengths in all ways. Every question has its own tenant.

By default an engine in this process is measured, with `--paced` several that sleep for the default
model's step times, with `--url` a server: Plato's needs the settings `equal_work=true` and
`split_threshold=1`, another one answers sequentially only. Its key is in PLATO_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from itertools import islice
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.answering.asking import Way
from benchmarks.common.report import Report, arguments
from benchmarks.load.arrivals import arrivals
from benchmarks.load.driver import play, saturate
from benchmarks.load.metrics import COLUMNS, Row, Targets, mean_row, metrics, row
from benchmarks.load.outcomes import Played
from benchmarks.load.systems import System, in_process, paced, served, settings_of
from plato.errors import PlatoError

RATES = (0.2, 0.5, 0.8, 1.0, 1.2, 2.0)
QUICK_RATES = (0.5, 1.0, 2.0)
SEEDS, QUICK_SEEDS = 3, 1
WINDOW_S, QUICK_WINDOW_S = 9.0, 4.5
FILLS, QUICK_FILLS = 3, 2
"""How often the system is filled to measure its capacity."""
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
    parser.add_argument("--long", type=float, default=0.5, help="share of the questions with parts")
    parser.add_argument("--first-text-s", type=float, default=2.0, help="target for goodput")
    parser.add_argument(
        "--token-s", type=float, default=0.05, help="target for goodput: time per output token"
    )
    options = parser.parse_args()
    options.rates = options.rates or (QUICK_RATES if options.quick else RATES)
    options.seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    options.window = options.window or (QUICK_WINDOW_S if options.quick else WINDOW_S)
    return options


def open_system(options: argparse.Namespace) -> AbstractAsyncContextManager[System]:
    """What the options name."""
    if options.url:
        return served(options.url, options.model, options.at_once)
    return in_process(paced(options.paced) if options.paced else settings_of())


async def measure(options: argparse.Namespace) -> Report:
    """All measurements. Raises `RuntimeError` if the system does not answer as it must."""
    async with open_system(options) as system:
        capacity = await measure_capacity(system, options)
        per_s = max(found["requests_per_s"] for found in capacity.values())
        targets = Targets(options.first_text_s, options.token_s)
        rows = []
        for seed in range(options.seeds):
            # Another order for each seed: whatever drifts meets every way and rate.
            chance = random.Random(seed)
            for rate in chance.sample(options.rates, len(options.rates)):
                count = max(2, round(options.window * rate * per_s))
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
            "seeds": options.seeds,
            "window_s": options.window,
            "long_share": options.long,
            "at_once": system.at_once,
            "first_text_target_s": options.first_text_s,
            "token_target_s": options.token_s,
        },
        metrics={"capacity": capacity, **metrics(rows)},
        rows=rows,
    )


async def measure_capacity(
    system: System, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Answers and tokens a second of a full system, by way; before, each way warms up.

    Raises `RuntimeError` if a question is not answered.
    """
    fills = QUICK_FILLS if options.quick else FILLS
    questions = [
        arrival.question
        for arrival in islice(arrivals(0, options.long), max(2, fills * system.at_once))
    ]
    for way in system.ways:
        _require(await saturate(system, way, questions[:2]), way)
    capacity = {}
    for way in system.ways:
        played = await saturate(system, way, questions)
        _require(played, way)
        tokens = sum(outcome.tokens for outcome in played.outcomes)
        capacity[way.name] = {
            "requests_per_s": len(questions) / played.makespan_s,
            "tokens_per_s": tokens / played.makespan_s,
        }
        sys.stderr.write(f"full, {way.name}: {tokens / played.makespan_s:.1f} tokens/s\n")
    return capacity


def _require(played: Played, way: Way) -> None:
    for outcome in played.outcomes:
        if not outcome.answered:
            why = outcome.failure or "refused; lower --at-once"
            raise RuntimeError(f"{outcome.question.name}, {way.name}: {why}")


def _say(one: Row) -> None:
    sys.stderr.write(
        "seed {seed}, rate {rate:g}, {way}: {questions} questions, {tokens_per_s:.1f} tokens/s, "
        "{goodput_per_s:.2f} good/s\n".format(**one)
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
