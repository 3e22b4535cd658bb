"""Does a plan cost correctness? Tasks with known answers, by mode and complexity of the plan.

    python -m benchmarks.ground_truth --json FILE [NAME=VALUE ...]

*Consistency*: part 1 chooses a place, the parts that depend on it must name the same one. *Sums*:
every part states a number computed from the parts it needs. Plans have 0 to 8 dependencies and a
depth of 1 to 4. Every task is asked in every mode, with its own plan (`--plans given`) or with the
model's (`--plans own`), and scored by exact match. In mode `skeleton` no part sees a choice, so
what it states agrees by chance only; the report says how often.

Runs in this process with the given settings (`model=...`), or against `--url`.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any

from benchmarks.common.report import Report, arguments
from benchmarks.ground_truth.asking import ask_all
from benchmarks.ground_truth.evaluation import evaluate
from benchmarks.ground_truth.tasks import CONSISTENCY, SUMS, Task, draw_tasks
from plato.client import Asker, AsyncClient, LocalClient
from plato.errors import PlatoError
from plato.runs import Mode
from plato.runtime import Runtime
from plato.settings import Settings, read_settings

MODES = (Mode.SEQUENTIAL, Mode.PLATO, Mode.SKELETON)


def main() -> None:
    """Run the benchmark."""
    parser = _parser()
    options = parser.parse_args()
    given = [setting.partition("=") for setting in options.settings]
    if any(not sign for _, sign, _ in given):
        parser.error("settings are written NAME=VALUE, for example model=FOLDER")
    if options.url and given:
        parser.error("settings apply to a model in this process; omit them, or --url")
    try:
        settings = read_settings({name: value for name, _, value in given})
        report = asyncio.run(_run(settings, options))
    except PlatoError as error:
        parser.error(error.message)
    report.write(options.json)


def _parser() -> argparse.ArgumentParser:
    parser = arguments("ground_truth", __doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="settings of the model")
    parser.add_argument("--url", help="ask a server instead of a model in this process")
    parser.add_argument("--plans", choices=("given", "own"), default="given")
    parser.add_argument(
        "--modes",
        nargs="+",
        type=Mode,
        choices=MODES,
        default=list(MODES),
        metavar="MODE",
        help=f"of {', '.join(MODES)}",
    )
    parser.add_argument("--seed", type=int, default=17, help="of the tasks and of sampling")
    parser.add_argument("--consistency", type=int, default=147, help="number of tasks")
    parser.add_argument("--sums", type=int, default=63, help="number of tasks")
    parser.add_argument("--concurrency", type=int, default=16, help="tasks asked at a time")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--repetition-penalty", type=float, default=1.0, help="1 allows copies")
    return parser


async def _run(settings: Settings, options: argparse.Namespace) -> Report:
    counts = {CONSISTENCY: options.consistency, SUMS: options.sums}
    if options.quick:
        counts = {kind: min(count, 21) for kind, count in counts.items()}
    tasks: Sequence[Task] = [
        task for kind, count in counts.items() for task in draw_tasks(kind, count, options.seed)
    ]
    sampling = {
        "temperature": options.temperature,
        "repetition_penalty": options.repetition_penalty,
        "seed": options.seed,
    }
    async with await _client(settings, options.url) as client:
        rows: list[dict[str, Any]] = []
        for mode in options.modes:
            rows += await ask_all(
                client,
                tasks,
                mode,
                given_plans=options.plans == "given",
                sampling=sampling,
                concurrency=options.concurrency,
            )
    shown = {**settings.model_dump(), "plans": options.plans, "sampling": sampling, "tasks": counts}
    model = options.url or settings.model_name
    return Report("ground_truth", model, shown, evaluate(tasks, rows), rows)


async def _client(settings: Settings, url: str | None) -> Asker:
    return AsyncClient(url) if url else LocalClient(await Runtime.open(settings))


if __name__ == "__main__":
    main()
