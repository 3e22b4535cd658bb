"""How much faster is Plato than sequential decoding, and how close to the bound?

    python -m benchmarks.answers [--quick] [--json FILE] [--questions FILE] [--free N]

*Fixed*: the questions of the fixed workload with the same plan, lengths and work in every mode, one
at a time in this process (`runtime`) and over Ray Serve and HTTP (`http`), compared with the bound
of `benchmarks.answering.bound` with step times measured in the same run; and several concurrently
over HTTP. *Free*: questions from a file (JSON lines with `question`, or FastChat's `turns`), with
the model's own plans and lengths. Every question has its own tenant, so that no answer uses the
cache of another.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from deployments.local import LocalApp  # isort: skip
from rich.console import Console
from rich.table import Table

from benchmarks.answering.asking import (
    AUTO,
    GIVEN,
    PLATO,
    SEQUENTIAL,
    SKELETON,
    WARM_UP,
    Answered,
    Asker,
    Question,
    RuntimeAsker,
    Way,
    http_asker,
)
from benchmarks.answering.bound import Bound
from benchmarks.answering.calibration import calibrate, fastest
from benchmarks.answering.comparing import CONCURRENCY, metrics
from benchmarks.answering.ideal import ideal_of, reuse_of
from benchmarks.common.report import Report, arguments, read_jsonl
from benchmarks.common.workload import SHARED_DATA, fixed_graphs
from plato.models import resolve_model
from plato.ports import free_port
from plato.runtime import Runtime
from plato.settings import Settings
from plato.testing.paced import Pace

FIXED_WAYS = (SEQUENTIAL, SKELETON, PLATO, GIVEN)
HTTP_WAYS = (SEQUENTIAL, PLATO)
FREE_WAYS = (SEQUENTIAL, SKELETON, PLATO, AUTO)
QUICK_GRAPHS = (
    "first-bicycle",
    "bread-faults",
    "unequal-parts",
    "heat-or-insulate",
    "diamond",
    "two-sided",
    "chain-4",
)
REPETITION_PENALTY = 1.1
FREE_NODE_TOKENS, FREE_SEQUENTIAL_TOKENS = 96, 512
"""A very small model answers: without an end it goes round in circles."""


def main() -> None:
    """Run the benchmark."""
    parser = arguments("answers", __doc__ or "")
    parser.add_argument("--questions", type=Path, default=SHARED_DATA / "vicuna80.jsonl")
    parser.add_argument("--free", type=int, help="how many of the questions")
    parser.add_argument("--repeats", type=int, default=1, help="of the fixed workload")
    options = parser.parse_args()
    settings = Settings(
        node_deadline_s=600,
        run_deadline_s=1200,
        plan_deadline_s=300,
        patience_s=600,
        repetition_penalty=REPETITION_PENALTY,
        node_max_tokens=FREE_NODE_TOKENS,
        sequential_max_tokens=FREE_SEQUENTIAL_TOKENS,
        equal_work=True,
    )
    graphs = [g for g in fixed_graphs() if not options.quick or g.name in QUICK_GRAPHS]
    fixed = [Question.of(graph) for graph in graphs]
    # As many as fill sixteen places for a while; shorter, as what is compared is throughput.
    crowd = [Question.of(graph, 0.4) for graph in (graphs * 3 if options.quick else graphs * 2)]
    free = free_questions(options.questions, options.free or (4 if options.quick else 24))
    folder = resolve_model(settings.model)
    # Before, between and after: other tenants of the processor come and go.
    paces = [calibrate(folder)]
    inside = asyncio.run(in_process(settings, fixed, options.repeats))
    paces.append(calibrate(folder))
    with LocalApp(settings, port=free_port()) as app:
        outside = asyncio.run(over_http(app.url, settings, fixed, options.repeats))
        rest = asyncio.run(crowds(app.url, settings, crowd))
        rest += asyncio.run(freely(app.url, settings, free))
    paces.append(calibrate(folder))
    pace = fastest(paces)
    rows = bounded(inside, outside, pace) + rest
    report = Report(
        "answers",
        settings.model_name,
        {
            "quick": options.quick,
            "fixed": len(fixed),
            "repeats": options.repeats,
            "crowd": len(crowd),
            "free": len(free),
            "pace": str(pace),
        },
        metrics=metrics(rows),
        rows=rows,
    )
    show(rows)
    report.write(options.json)


def free_questions(path: Path, count: int) -> list[Question]:
    """Some questions of a file, spread over it; none if there is no such file."""
    if not path.exists():
        sys.stderr.write(f"there is no {path}; no questions are asked freely\n")
        return []
    lines = read_jsonl(path)
    step = max(1, len(lines) // count)
    return [
        Question(
            str(line.get("question_id", number)),
            str(line.get("category", "")),
            str(line["question"] if "question" in line else line["turns"][0]),
        )
        for number, line in enumerate(lines[::step][:count])
    ]


async def in_process(
    settings: Settings, questions: Sequence[Question], repeats: int
) -> list[tuple[Answered, dict[str, Any]]]:
    """Every question in every way, one at a time, through `plato.runtime`; with its reuse."""
    found = []
    async with await Runtime.open(settings) as runtime:
        asker = RuntimeAsker(runtime, settings)
        for way in (SEQUENTIAL, PLATO):
            await asker.ask(WARM_UP, way)
        for _ in range(repeats):
            for question in questions:
                for way in FIXED_WAYS:
                    answered = await asker.ask(question, way)
                    found.append((answered, reuse_of(runtime.tools, answered)))
                    _say("runtime", answered)
    return found


def bounded(
    inside: Sequence[tuple[Answered, dict[str, Any]]], outside: Sequence[Answered], pace: Pace
) -> list[dict[str, Any]]:
    """Rows with their bounds. The work of an answer over HTTP is that of the one in process."""
    bounds: dict[tuple[str, str], Bound] = {}
    rows = []
    for answered, reuse in inside:
        ideal = ideal_of(answered, reuse["cacheable_by_part"], pace)
        bounds[answered.question.name, answered.way] = ideal
        rows.append(row(answered, "runtime", ideal) | reuse)
    rows += [row(one, "http", bounds[one.question.name, one.way]) for one in outside]
    return rows


async def over_http(
    url: str, settings: Settings, questions: Sequence[Question], repeats: int
) -> list[Answered]:
    """The same through Ray Serve and HTTP."""
    found = []
    async with http_asker(url, settings.model_name) as asker:
        for way in (SEQUENTIAL, PLATO):
            await asker.ask(WARM_UP, way)
        for _ in range(repeats):
            for question in questions:
                for way in HTTP_WAYS:
                    found.append(await asker.ask(question, way))
                    _say("http", found[-1])
    return found


async def crowds(url: str, settings: Settings, crowd: Sequence[Question]) -> list[dict[str, Any]]:
    """Several at a time."""
    rows: list[dict[str, Any]] = []
    async with http_asker(url, settings.model_name) as asker:
        for concurrency in CONCURRENCY:
            for way in HTTP_WAYS:
                rows += await crowded(asker, crowd, way, concurrency)
    return rows


async def crowded(
    asker: Asker, questions: Sequence[Question], way: Way, concurrency: int
) -> list[dict[str, Any]]:
    """All questions in one way, `concurrency` at a time."""
    waiting = list(reversed(questions))
    answers: list[Answered] = []

    async def keep_asking() -> None:
        while waiting:
            answers.append(await asker.ask(waiting.pop(), way))

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(concurrency):
            tasks.create_task(keep_asking())
    makespan_s = time.perf_counter() - began
    tokens = sum(answered.tokens for answered in answers)
    sys.stderr.write(f"{concurrency} at a time, {way.name}: {tokens / makespan_s:.1f} tokens/s\n")
    return [
        row(answered, "http", concurrency=concurrency) | {"makespan_s": makespan_s}
        for answered in answers
    ]


async def freely(
    url: str, settings: Settings, questions: Sequence[Question]
) -> list[dict[str, Any]]:
    """Questions with the model's own plans and lengths, one at a time."""
    rows: list[dict[str, Any]] = []
    async with http_asker(url, settings.model_name) as asker:
        for question in questions:
            for way in FREE_WAYS:
                answered = await asker.ask(question, way)
                rows.append(row(answered, "free"))
                _say("free", answered)
    return rows


def row(
    answered: Answered, via: str, ideal: Bound | None = None, *, concurrency: int = 1
) -> dict[str, Any]:
    """An answer as a row of the report."""
    info = answered.info
    found = {
        "via": via,
        "concurrency": concurrency,
        "question": answered.question.name,
        "kind": answered.question.kind,
        "way": answered.way,
        "mode": info["mode"],
        "parts": len(info["graph"]["nodes"]),
        "tokens": answered.tokens,
        "plan_tokens": info["plan"]["tokens"],
        "latency_s": answered.latency_s,
        "first_text_s": answered.first_text_s,
        "tokens_per_s": answered.tokens / answered.latency_s,
        "parallelism": answered.parallelism,
        "planning_share": answered.before_parts_s / answered.latency_s,
    }
    if ideal is not None:
        found |= {
            "bound_s": ideal.latency_s,
            "bound_share": ideal.latency_s / answered.latency_s,
            "first_text_bound_s": ideal.first_text_s,
            "first_text_bound_share": ideal.first_text_s / answered.first_text_s,
        }
    return found


def _say(via: str, answered: Answered) -> None:
    name = answered.question.name
    sys.stderr.write(f"{via} {name} {answered.way}: {answered.latency_s:.2f} s\n")


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print medians by way and kind."""
    table = Table(title="medians")
    columns = ("latency_s", "first_text_s", "tokens_per_s", "parallelism", "planning_share")
    for name in ("via", "at once", "way", "kind", "n"):
        table.add_column(name)
    for column in (*columns, "speed-up", "bound_share"):
        table.add_column(column, justify="right")
    groups: dict[tuple[str, int, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["via"], row["concurrency"], row["way"], row["kind"]].append(row)
    for (via, concurrency, way, kind), found in groups.items():
        base = groups[via, concurrency, SEQUENTIAL.name, kind]
        ratio = median(r["latency_s"] for r in base) / median(r["latency_s"] for r in found)
        shares = [row["bound_share"] for row in found if "bound_share" in row]
        table.add_row(
            *(via, str(concurrency), way, kind, str(len(found))),
            *(f"{median(row[column] for row in found):.2f}" for column in columns),
            f"{ratio:.2f}",
            f"{median(shares):.2f}" if shares else "",
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
