"""What is the overhead of Plato where it cannot help?

    python -m benchmarks.worst_case [--quick] [--json FILE]

In this process, compared with sequential decoding of equal work: a pure chain, whose nodes all
depend on each other; a question that `auto` does not split, which costs the decision; and a machine
whose batch is already full, where parallel decoding gains nothing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.answering.asking import AUTO, PLATO, SEQUENTIAL, RuntimeAsker, Way
from benchmarks.answering.questions import WARM_UP, Question
from benchmarks.common.report import Report, arguments
from benchmarks.common.statistics import bootstrap
from benchmarks.common.workload import fixed_graphs
from plato.runs import Mode
from plato.runtime import Runtime
from plato.settings import Settings

UNSPLIT = (
    "Write a short poem about a lighthouse keeper.",
    "What is the capital of Australia?",
    "Write a Python function that reverses a string.",
    "A train leaves at nine and travels 180 km at 60 km/h. When does it arrive?",
    "Write a letter to my neighbour about the noise at night.",
    "Write a speech for the opening of a library.",
)
UNSPLIT_TOKENS = 160
FULL = 16
"""Runs at a time; as many sequences fill the engine."""
CROWD_SCALE = 0.3


def main() -> None:
    """Run the benchmark."""
    options = arguments("worst_case", __doc__ or "").parse_args()
    settings = Settings(
        node_deadline_s=600,
        run_deadline_s=1200,
        patience_s=600,
        max_sequences=FULL,
        sequential_max_tokens=UNSPLIT_TOKENS,
        equal_work=True,
    )
    rows = asyncio.run(measure(settings, quick=options.quick))
    report = Report(
        "worst_case",
        settings.model_name,
        {"quick": options.quick, "at_once": FULL},
        metrics=metrics(rows),
        rows=rows,
    )
    show(rows)
    report.write(options.json)


async def measure(settings: Settings, *, quick: bool) -> list[dict[str, Any]]:
    """All cases."""
    rows: list[dict[str, Any]] = []
    chains = [Question.of(graph) for graph in fixed_graphs() if graph.kind == "chain"]
    unsplit = [
        Question(f"unsplit-{number}", "unsplit", text) for number, text in enumerate(UNSPLIT)
    ]
    others = [graph for graph in fixed_graphs() if graph.kind != "chain"]
    crowd = [Question.of(graph, CROWD_SCALE) for graph in (others if quick else others * 2)]
    async with await Runtime.open(settings) as runtime:
        asker = RuntimeAsker(runtime, settings)
        for way in (SEQUENTIAL, PLATO):
            await asker.ask(WARM_UP, way)
        for repeat in range(2 if quick else 4):
            # Who comes first changes, so that nobody always follows the same.
            turn = -1 if repeat % 2 else 1
            rows += [
                await one(asker, question, way, repeat)
                for other, questions in ((PLATO, chains), (AUTO, unsplit))
                for question in questions
                for way in (SEQUENTIAL, other)[::turn]
            ]
        rows += [await full(asker, crowd, way) for way in (SEQUENTIAL, PLATO)]
    return rows


async def one(asker: RuntimeAsker, question: Question, way: Way, repeat: int) -> dict[str, Any]:
    """One answer of an idle machine."""
    answered = await asker.ask(question, way)
    sys.stderr.write(f"{question.name} {way.name}: {answered.latency_s:.2f} s\n")
    return {
        "case": question.kind,
        "question": question.name,
        "way": way.name,
        "repeat": repeat,
        "mode": answered.info["mode"],
        "tokens": answered.tokens,
        "latency_s": answered.latency_s,
        "first_text_s": answered.first_text_s,
        "before_parts_s": answered.before_parts_s,
        "tokens_per_s": answered.tokens / answered.latency_s,
    }


async def full(asker: RuntimeAsker, questions: Sequence[Question], way: Way) -> dict[str, Any]:
    """All questions, as many at a time as fill the engine."""
    waiting = list(questions)
    tokens = 0

    async def keep_asking() -> None:
        nonlocal tokens
        while waiting:
            # Not in one statement: the sum would be read before the answer is awaited.
            answered = await asker.ask(waiting.pop(), way)
            tokens += answered.tokens

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(FULL):
            tasks.create_task(keep_asking())
    makespan_s = time.perf_counter() - began
    sys.stderr.write(f"full, {way.name}: {tokens / makespan_s:.1f} tokens/s\n")
    return {
        "case": "full",
        "question": "",
        "way": way.name,
        "tokens": tokens,
        "latency_s": makespan_s,
        "tokens_per_s": tokens / makespan_s,
    }


def metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Costs as shares of the sequential time; medians over questions and repeats."""
    chain = [ours["latency_s"] / theirs["latency_s"] - 1 for theirs, ours in pairs(rows, "chain")]
    unsplit = [
        (theirs, ours)
        for theirs, ours in pairs(rows, "unsplit")
        if ours["mode"] == Mode.SEQUENTIAL.value
    ]
    costs = [
        (ours["latency_s"] - ours["before_parts_s"]) / theirs["latency_s"] - 1
        for theirs, ours in unsplit
    ]
    crowd = {row["way"]: row["tokens_per_s"] for row in rows if row["case"] == "full"}
    return {
        "chain_cost": median(chain),
        "chain_cost_interval": bootstrap(chain, median),
        "unsplit_cost": median(costs),
        "unsplit_cost_interval": bootstrap(costs, median),
        "decision_s": median(ours["before_parts_s"] for _, ours in unsplit),
        "unsplit_questions": len({ours["question"] for _, ours in unsplit}),
        "full_throughput_ratio": crowd[PLATO.name] / crowd[SEQUENTIAL.name],
    }


def pairs(rows: Sequence[dict[str, Any]], case: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(sequential, the other way) of every question and repeat; equal work is checked."""
    base = {
        (row["question"], row["repeat"]): row
        for row in rows
        if row["case"] == case and row["way"] == SEQUENTIAL.name
    }
    found = []
    for row in rows:
        if row["case"] == case and row["way"] != SEQUENTIAL.name:
            theirs = base[row["question"], row["repeat"]]
            if row["mode"] == Mode.SEQUENTIAL.value and row["tokens"] != theirs["tokens"]:
                raise RuntimeError(f"{row['question']}: {row['tokens']} and {theirs['tokens']}")
            found.append((theirs, row))
    return found


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print medians."""
    table = Table(title="where Plato cannot help: medians")
    for name in ("case", "question", "way"):
        table.add_column(name)
    for name in ("tokens", "latency_s", "tokens_per_s", "before_parts_s"):
        table.add_column(name, justify="right")
    keys = dict.fromkeys((row["case"], row["question"], row["way"]) for row in rows)
    for key in keys:
        found = [row for row in rows if (row["case"], row["question"], row["way"]) == key]
        table.add_row(
            *key,
            *(
                f"{median(row.get(name, 0) for row in found):.3g}"
                for name in ("tokens", "latency_s", "tokens_per_s", "before_parts_s")
            ),
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
