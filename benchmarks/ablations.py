"""How much does each feature of Plato contribute?

    python -m benchmarks.ablations [--quick] [--json FILE]

The fixed workload in this process, with decoded plans, one question at a time: with and without
pipelining, KV reuse, forced grammar tokens and priority; with maximum batch sizes of 1 to 8; and
questions of 32, 512 and 4,096 tokens with and without reuse. Pipelining and priority are switched
for every question in turn, on one engine. Engine variants run one after the other, because two
engines in one process slow each other down.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.answering.asking import PLATO, SEQUENTIAL, Answered, RuntimeAsker
from benchmarks.answering.calibration import calibrate, fastest
from benchmarks.answering.ideal import ideal_of, reuse_of
from benchmarks.answering.questions import WARM_UP, Question
from benchmarks.answering.variants import FlatPriority, WholePlan
from benchmarks.common.report import Report, arguments
from benchmarks.common.statistics import bootstrap
from benchmarks.common.workload import fixed_graphs
from plato.assembly import new_planner
from plato.models import resolve_model
from plato.runs import Node
from plato.runtime import LocalPool, Runtime
from plato.settings import Settings
from plato.testing.paced import Pace

QUICK_GRAPHS = ("bread-faults", "first-bicycle", "garden-year", "two-sided")
SCHEDULED = ("pipelining", "priority")
ENGINES = {
    "reuse": "benchmarks.engine.variants:engine_without_reuse",
    "forced_tokens": "benchmarks.engine.variants:engine_without_forced_tokens",
}
WIDTHS = (1, 2, 4, 8)
LENGTHS = (32, 512, 4096)
LONG_PLAN = (
    Node(1, "What it is about", (), 24),
    Node(2, "The main points", (), 24),
    Node(3, "What follows from them", (1, 2), 24),
    Node(4, "What is missing", (), 24),
)


def main() -> None:
    """Run the benchmark."""
    options = arguments("ablations", __doc__ or "").parse_args()
    graphs = [
        graph
        for graph in fixed_graphs()
        if (graph.name in QUICK_GRAPHS if options.quick else graph.kind != "chain")
    ]
    questions = [Question.of(graph) for graph in graphs]
    settings = Settings(
        node_deadline_s=600,
        run_deadline_s=1200,
        kv_budget_mb=2048,
        # Of the questions that warm up; the others say how long their answers are.
        node_max_tokens=32,
        sequential_max_tokens=32,
        equal_work=True,
    )
    folder = resolve_model(settings.model)
    pace = fastest([calibrate(folder) for _ in range(2)])
    rows = asyncio.run(measure(settings, pace, questions, repeats=1 if options.quick else 2))
    report = Report(
        "ablations",
        settings.model_name,
        {"quick": options.quick, "questions": len(questions), "pace": str(pace)},
        metrics=metrics(rows),
        rows=rows,
    )
    show(rows)
    report.write(options.json)


async def measure(
    settings: Settings, pace: Pace, questions: Sequence[Question], repeats: int
) -> list[dict[str, Any]]:
    """Rows of all variants."""
    rows: list[dict[str, Any]] = []
    async with await Runtime.open(settings) as runtime:
        tools, engines = runtime.tools, runtime.engines
        planner = WholePlan(new_planner(settings, tools, LocalPool(engines)))
        runtimes = {
            "pipelining": Runtime(settings, tools, engines, planner=planner),
            "priority": Runtime(settings, tools, engines, pool=FlatPriority(engines)),
        }
        askers = {"all": RuntimeAsker(runtime, settings)}
        askers |= {
            f"without {name}": RuntimeAsker(other, settings) for name, other in runtimes.items()
        }
        for way in (SEQUENTIAL, PLATO):
            await askers["all"].ask(WARM_UP, way)
        for repeat in range(repeats):
            for question in questions:
                # Who comes first changes, so that nobody always follows the same.
                names = sorted(askers, reverse=bool(repeat % 2))
                for name in names:
                    answered = await askers[name].ask(question, PLATO)
                    rows.append(row(name, runtime, answered, pace))
        for length in LENGTHS:
            answered = await askers["all"].ask(long_question(runtime, length), PLATO)
            rows.append(row("all", runtime, answered, pace))
        for other in runtimes.values():
            await other.scheduler.close()
    for name, engine in ENGINES.items():
        changed = settings.model_copy(update={"engine": engine})
        rows += await alone(changed, f"without {name}", pace, questions, long=name == "reuse")
    for width in WIDTHS:
        changed = settings.model_copy(update={"max_sequences": width})
        rows += await alone(changed, f"width {width}", pace, questions)
    # Once more, against drift: what came between is compared with the mean of both.
    rows += await alone(settings, "all", pace, questions)
    return rows


async def alone(
    settings: Settings,
    name: str,
    pace: Pace,
    questions: Sequence[Question],
    *,
    long: bool = False,
) -> list[dict[str, Any]]:
    """Rows of a variant that needs its own engine."""
    async with await Runtime.open(settings) as runtime:
        asker = RuntimeAsker(runtime, settings)
        for way in (SEQUENTIAL, PLATO):
            await asker.ask(WARM_UP, way)
        asked = list(questions)
        if long:
            asked += [long_question(runtime, length) for length in LENGTHS]
        return [row(name, runtime, await asker.ask(q, PLATO), pace) for q in asked]


def long_question(runtime: Runtime, length: int) -> Question:
    """A question of `length` tokens: a piece of Python's documentation, and what to do with it."""
    from pydoc_data import topics

    tokenizer = runtime.tools.tokenizer
    ask = "\n\nExplain this to somebody who is new to it."
    room = length - len(tokenizer.text(ask))
    text = "\n\n".join(topics.topics[name] for name in sorted(topics.topics))
    tokens = tokenizer.text(text[: 8 * length])[:room]
    return Question(f"{length} tokens", "long", tokenizer.decode(tokens) + ask, LONG_PLAN)


def row(name: str, runtime: Runtime, answered: Answered, pace: Pace) -> dict[str, Any]:
    """An answer as a row of the report; `bound_s` is what the variant could reach."""
    reuse = reuse_of(runtime.tools, answered)
    pipelining = name != "without pipelining"
    reached = ideal_of(answered, reuse["cacheable_by_part"], pace, pipelining=pipelining)
    found = {
        "variant": name,
        "question": answered.question.name,
        "kind": answered.question.kind,
        "latency_s": answered.latency_s,
        "first_text_s": answered.first_text_s,
        "bound_s": reached.latency_s,
        "bound_share": reached.latency_s / answered.latency_s,
        "cached": reuse["cached"],
        "cacheable": reuse["cacheable"],
        "computed": reuse["computed"],
        "plan_steps": answered.info["plan"]["steps"],
        "plan_s": answered.info["timings"]["plan_s"],
    }
    sys.stderr.write(f"{name}, {answered.question.name}: {answered.latency_s:.2f} s\n")
    return found


def metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The gain of each feature: time of the variant over time with all features, and more."""
    normal = [row for row in rows if row["kind"] != "long"]
    everything = by_question(normal, "all")
    without = by_question(normal, "without pipelining")
    gained = sum(mean(without[q], "latency_s") - mean(everything[q], "latency_s") for q in without)
    possible = sum(mean(without[q], "bound_s") - mean(everything[q], "bound_s") for q in without)
    found: dict[str, Any] = {
        "pipeline_gain_s": gained,
        "pipeline_gain_possible_s": possible,
        "pipeline_gain_share": gained / possible,
        "first_text_pipeline_ratio": median(
            mean(everything[q], "first_text_s") / mean(without[q], "first_text_s") for q in without
        ),
    }
    ours = [row for row in normal if row["variant"] == "all"]
    found["cached_over_cacheable"] = sum(row["cached"] for row in ours) / sum(
        row["cacheable"] for row in ours
    )
    for length in LENGTHS:
        pair = [
            next(
                row
                for row in rows
                if (row["variant"], row["question"]) == (variant, f"{length} tokens")
            )
            for variant in ("all", "without reuse")
        ]
        found[f"prefill_cut_{length}"] = 1 - pair[0]["computed"] / pair[1]["computed"]
        found[f"reuse_gain_{length}"] = pair[1]["latency_s"] / pair[0]["latency_s"]
    for name in (*SCHEDULED, *ENGINES):
        other = by_question(normal, f"without {name}")
        ratios = [mean(other[q], "latency_s") / mean(everything[q], "latency_s") for q in other]
        found[f"{name}_gain"] = median(ratios)
        found[f"{name}_gain_interval"] = bootstrap(ratios, median)
    for width in WIDTHS:
        other = by_question(normal, f"width {width}")
        found[f"width_{width}_slowdown"] = median(
            mean(other[q], "latency_s") / mean(everything[q], "latency_s") for q in other
        )
    return found


def by_question(rows: Sequence[dict[str, Any]], variant: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of a variant."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["variant"] == variant:
            found.setdefault(row["question"], []).append(row)
    return found


def mean(rows: Sequence[dict[str, Any]], column: str) -> float:
    """Mean of a column."""
    return float(sum(row[column] for row in rows) / len(rows))


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print medians by variant."""
    table = Table(title="plan decoded, one at a time: medians over questions")
    columns = ("latency_s", "first_text_s", "bound_share", "computed", "plan_steps")
    table.add_column("variant")
    for column in columns:
        table.add_column(column, justify="right")
    variants = dict.fromkeys(
        row["variant"] if row["kind"] != "long" else f"{row['variant']}, {row['question']}"
        for row in rows
    )
    for variant in variants:
        found = [
            row
            for row in rows
            if variant
            == (row["variant"] if row["kind"] != "long" else f"{row['variant']}, {row['question']}")
        ]
        table.add_row(variant, *(f"{median(row[c] for row in found):.3g}" for c in columns))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
