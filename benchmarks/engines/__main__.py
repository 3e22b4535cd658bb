"""Does Plato work on the engines that people already run, and is it faster there?

    python -m benchmarks.engines [--quick] [--only PART ...] [--engines NAME ...] [--json FILE]
        [--logs FOLDER]

The default model on vLLM in Plato's process (`vllm`), on vLLM's server and on llama.cpp's, each in
an environment of its own below `.engines`, which the first run makes.

*conformance*: the tests that every engine passes, against these (`make engines` runs this part
alone). *speed*: the questions of the fixed workload whose parts are independent, with equal lengths
and the plan decoded; sequentially from the engine's own endpoint and planned through
`plato serve --embedded` in front of it, in turn, while the other one stands still. *direct*: the
engine without Plato around it: prompt tokens computed for eight branches of one prefix, over the
least possible; and tokens a second of eight sequences over those of one, which no answer of eight
equal parts can gain more than.

Parts and engines that are not run keep their rows in FILE if they are of this machine. Nothing else
should run on the machine during *speed*. Needs 5 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.answering.questions import Question
from benchmarks.common.report import Report, arguments
from benchmarks.common.workload import fixed_graphs
from benchmarks.engines.conformance import check_conformance
from benchmarks.engines.direct import figures_of, measure_directly
from benchmarks.engines.environments import FOLDER
from benchmarks.engines.servers import ENGINES, RealEngine
from benchmarks.engines.speed import measure_speed, speed_metrics
from plato.settings import DEFAULT_MODEL

BUILT_IN = "torch"
QUICK_QUESTIONS = 2

Row = dict[str, Any]


def main() -> int:
    """Run the benchmark; the exit status is 1 if an engine does not conform."""
    parser = arguments("engines", __doc__ or "")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--repeats", type=int, default=1, help="of the questions")
    parser.add_argument("--logs", type=Path, default=FOLDER / "logs", help="of the servers")
    options = parser.parse_args()
    options.logs.mkdir(parents=True, exist_ok=True)
    report = Report("engines", DEFAULT_MODEL, {"quick": options.quick, "repeats": options.repeats})
    for part in options.only:
        for engine in (ENGINES[name] for name in options.engines):
            sys.stderr.write(f"{part}: {engine.name}\n")
            about = {"part": part, "engine": engine.name, "versions": engine.versions}
            report.rows += [about | row for row in PARTS[part](engine, options)]
    if "direct" in options.only:
        figures = figures_of({"engine": BUILT_IN})
        report.rows.append({"part": "direct", "engine": BUILT_IN} | figures)
    report.rows = kept_rows(options.json, report) + report.rows
    report.metrics = metrics(report.rows)
    report.write(options.json)
    return 1 if report.metrics.get("conformance_failures") else 0


def conformance(engine: RealEngine, options: argparse.Namespace) -> list[Row]:
    """What failed on one engine."""
    row = check_conformance(engine, options.logs)
    sys.stderr.write(f"{json.dumps(row)}\n")
    return [row]


def speed(engine: RealEngine, options: argparse.Namespace) -> list[Row]:
    """Every question both ways."""
    questions = [Question.of(graph) for graph in fixed_graphs() if graph.kind == "independent"]
    if options.quick:
        questions = questions[:QUICK_QUESTIONS]
    return measure_speed(engine, questions, options.repeats, options.logs)


def direct(engine: RealEngine, options: argparse.Namespace) -> list[Row]:
    """The figures of one engine without Plato around it."""
    return [measure_directly(engine, options.logs)]


PARTS: dict[str, Callable[[RealEngine, argparse.Namespace], list[Row]]] = {
    "conformance": conformance,
    "speed": speed,
    "direct": direct,
}


def kept_rows(file: Path | None, report: Report) -> list[Row]:
    """Rows of an earlier report of this machine for what this one does not have."""
    if file is None or not file.exists():
        return []
    earlier = json.loads(file.read_text("utf-8"))
    if earlier["machine"] != report.machine:
        return []
    measured = {(row["part"], row["engine"]) for row in report.rows}
    return [row for row in earlier["rows"] if (row["part"], row["engine"]) not in measured]


def metrics(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures of the report."""
    parts = {part: [row for row in rows if row["part"] == part] for part in PARTS}
    found: dict[str, Any] = {}
    if parts["conformance"]:
        found["conformance_failures"] = sum(row["failed"] for row in parts["conformance"])
    found |= speed_metrics(parts["speed"])
    for name in ("sibling_prefill_ratio", "width_gain") if parts["direct"] else ():
        found[name] = {row["engine"]: row[name] for row in parts["direct"]}
    return found


if __name__ == "__main__":
    sys.exit(main())
