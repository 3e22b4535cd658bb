"""How much faster is Plato than sequential decoding, and how close to the bound?

    python -m benchmarks.answers [--quick] [--json FILE] [--questions FILE] [--free N]

*Fixed*: the questions of the fixed workload with the same plan, lengths and work in every mode, one
at a time and interleaved: in this process (`runtime`), over HTTP from `plato serve --embedded`
(`embedded`) and from Ray Serve (`http`), compared with the bound of `benchmarks.answering.bound`
with step times measured in the same run; and several concurrently over HTTP from Ray Serve.
*Free*: questions from a file (JSON lines with `question`, or FastChat's `turns`), with the model's
own plans and lengths. Every question has its own tenant, so that no answer uses the cache of
another.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.answering.asking import (
    AUTO,
    GIVEN,
    PLATO,
    SEQUENTIAL,
    SKELETON,
    Answered,
    Asker,
    RuntimeAsker,
    Way,
    http_asker,
)
from benchmarks.answering.bound import Bound
from benchmarks.answering.calibration import calibrate, fastest
from benchmarks.answering.comparing import CONCURRENCY, metrics
from benchmarks.answering.ideal import ideal_of, reuse_of
from benchmarks.answering.questions import WARM_UP, Question, read_questions
from benchmarks.common.report import Report, arguments
from benchmarks.common.serving import serving
from benchmarks.common.workload import SHARED_DATA, fixed_graphs
from plato.models import resolve_model
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
    with serving(settings, embedded=False) as ray_serve:
        with serving(settings, embedded=True) as one_process:
            urls = {"embedded": one_process.url, "http": ray_serve.url}
            asked = asyncio.run(interleaved(settings, urls, fixed, options.repeats))
        paces.append(calibrate(folder))
        rest = asyncio.run(crowds(ray_serve.url, settings, crowd))
        rest += asyncio.run(freely(ray_serve.url, settings, free))
    paces.append(calibrate(folder))
    pace = fastest(paces)
    rows = bounded(asked, pace) + rest
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
    questions = read_questions(path)
    return questions[:: max(1, len(questions) // count)][:count]


@dataclass(frozen=True)
class Asked:
    """An answer, by the way that it took; with its reuse, if that is known."""

    via: str
    answered: Answered
    reuse: dict[str, Any] | None = None


async def interleaved(
    settings: Settings, urls: Mapping[str, str], questions: Sequence[Question], repeats: int
) -> list[Asked]:
    """Every question in every way, one at a time: in this process, and from servers."""
    found = []
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(await Runtime.open(settings))
        askers: dict[str, Asker] = {"runtime": RuntimeAsker(runtime, settings)}
        for via, url in urls.items():
            askers[via] = await stack.enter_async_context(http_asker(url, settings.model_name))
        for asker in askers.values():
            for way in HTTP_WAYS:
                await asker.ask(WARM_UP, way)
        for question in [question for _ in range(repeats) for question in questions]:
            for via, asker in askers.items():
                for way in FIXED_WAYS if via == "runtime" else HTTP_WAYS:
                    answered = await asker.ask(question, way)
                    reuse = reuse_of(runtime.tools, answered) if via == "runtime" else None
                    found.append(Asked(via, answered, reuse))
                    _say(via, answered)
    return found


def bounded(asked: Sequence[Asked], pace: Pace) -> list[dict[str, Any]]:
    """Rows with their bounds. The work of an answer over HTTP is that of the one in process."""
    bounds: dict[tuple[str, str], Bound] = {}
    rows = []
    for one in asked:
        key = one.answered.question.name, one.answered.way
        if one.reuse is not None:
            bounds[key] = ideal_of(one.answered, one.reuse["cacheable_by_part"], pace)
        rows.append(row(one.answered, one.via, bounds[key]) | (one.reuse or {}))
    return rows


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
