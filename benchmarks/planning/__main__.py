"""How good are plans?

    python -m benchmarks.planning [--only dependencies|plans|decisions] [--data FILE]
        [--questions FILE] [--labels FILE] [--tasks N] [--json FILE] [NAME=VALUE ...]

Nothing is answered; three things are measured:

*dependencies*: for the plans of `--data` (AsyncHow), titles given, the dependencies that the
planner chooses are compared with those that people wrote, beside three rules that know no titles.
A fifth of the tasks is held out; the others are for calibration and tuning.

*plans*: the model's own plans for `--questions` and for tasks of `--data`: how many are degenerate,
how many are followed, and what is in them.

*decisions*: whether `auto` splits the questions that `--labels` says people would split, with
the threshold of the settings and with one calibrated on every second question.

Tasks are JSON lines with `task`, `kind` and `parts` (`title`, `dependencies`); questions are JSON
lines with `turns` (FastChat) or `question`; labels are `label;request` with 1 for a question fit
for parallel points (Skeleton-of-Thought).
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.answering.questions import WARM_UP, Question, label_of, read_labels, read_questions
from benchmarks.common.report import Report, arguments
from benchmarks.common.rows import InputError
from benchmarks.common.workload import SHARED_DATA
from benchmarks.planning import decisions, dependencies, plans
from benchmarks.planning.asking import PlanAsker, each
from benchmarks.planning.dependencies import BASELINES, by_rule
from benchmarks.planning.labelled import LabelledPlan, questions_of, read_plans, sample
from plato.assembly import new_model_planner
from plato.errors import PlatoError
from plato.models.adapter import find_adapter
from plato.models.calibration import Calibration
from plato.runtime import LocalPool, Runtime
from plato.server.options import parse_assignments
from plato.settings import Settings, read_settings

DEPENDENCIES, PLANS, DECISIONS = "dependencies", "plans", "decisions"
MEASURES = (DEPENDENCIES, PLANS, DECISIONS)
QUESTIONS, TASKS = "questions", "tasks"
TASK_QUESTIONS = 200
"""Number of tasks that are asked as questions."""
QUICK_TASKS, QUICK_QUESTIONS = 20, 16
PATIENT = {"plan_deadline_s": 300}
"""A deadline that only a slow machine would miss is not about the plans."""


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = arguments("planning", __doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="as for 'plato serve'")
    parser.add_argument("--only", choices=MEASURES, help="measure only this")
    parser.add_argument("--data", type=Path, default=SHARED_DATA / "asynchow.jsonl")
    parser.add_argument("--questions", type=Path, default=SHARED_DATA / "vicuna80.jsonl")
    parser.add_argument("--labels", type=Path, default=SHARED_DATA / "vicuna80_router.csv")
    parser.add_argument("--tasks", type=_positive, help="a sample of so many tasks; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--concurrency", type=_positive, default=16, help="plans at a time")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="store the calibrated threshold of decisions with the configured adapter",
    )
    options = parser.parse_args(given)
    try:
        settings = read_settings({**PATIENT, **parse_assignments(options.settings)})
        report = asyncio.run(_run(settings, options))
        if options.calibrate:
            _calibrate(settings, report)
    except (InputError, PlatoError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    report.write(options.json, *_tables(report.metrics))


def _calibrate(settings: Settings, report: Report) -> None:
    adapter = find_adapter(settings)
    if adapter is None or DECISIONS not in report.metrics:
        raise InputError("--calibrate needs an adapter, and decisions to be measured")
    threshold = report.metrics[DECISIONS]["calibrated_threshold"]
    replace(Calibration.read(adapter), split_threshold=threshold).write(adapter)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


async def _run(settings: Settings, options: argparse.Namespace) -> Report:
    wanted = [options.only] if options.only else MEASURES
    tasks: list[LabelledPlan] = []
    questions: list[Question] = []
    fit: list[bool] = []
    number = min(options.tasks or QUICK_TASKS, QUICK_TASKS) if options.quick else options.tasks
    if options.only != DECISIONS:
        tasks = sample(read_plans(options.data), number, options.seed)
    if options.only != DEPENDENCIES:
        questions = read_questions(options.questions)[: QUICK_QUESTIONS if options.quick else None]
    if DECISIONS in wanted:
        labels = read_labels(options.labels)
        fit = [label_of(question, labels) for question in questions]
        decisions.check_labels(fit)

    sampled = {"tasks": number, "seed": options.seed}
    report = Report("planning", settings.model_name, {**settings.model_dump(), **sampled})
    async with await Runtime.open(settings) as runtime:
        planner = new_model_planner(settings, runtime.tools, LocalPool(runtime.engines))
        asker = PlanAsker(planner, settings)
        # Loads what is loaded at first use, which would count as the time of a decision.
        await asker.decide(WARM_UP, fit=False)
        if DEPENDENCIES in wanted:
            await _dependencies(report, asker, tasks, options.concurrency)
        if PLANS in wanted:
            asked = [(QUESTIONS, question) for question in questions]
            few = sample(tasks, TASK_QUESTIONS, options.seed)
            asked += [(TASKS, question) for question in questions_of(few)]
            await _plans(report, asker, asked, options.concurrency)
        if DECISIONS in wanted:
            await _decisions(report, asker, list(zip(questions, fit, strict=True)))
    return report


async def _dependencies(
    report: Report, asker: PlanAsker, tasks: Sequence[LabelledPlan], concurrency: int
) -> None:
    predicted = {
        "planner": await each(DEPENDENCIES, tasks, asker.dependencies, concurrency),
        **{name: [by_rule(rule, task) for task in tasks] for name, rule in BASELINES.items()},
    }
    report.metrics[DEPENDENCIES] = dependencies.evaluate(tasks, predicted)
    report.rows += [
        {
            "measure": DEPENDENCIES,
            "task": task.task,
            "kind": task.kind,
            "side": task.side,
            "titles": [node.title for node in task.nodes],
            "true": [node.dependencies for node in task.nodes],
            "predicted": [node.dependencies for node in graph],
        }
        for task, graph in zip(tasks, predicted["planner"], strict=True)
    ]


async def _plans(
    report: Report, asker: PlanAsker, asked: Sequence[tuple[str, Question]], concurrency: int
) -> None:
    found = await each(PLANS, asked, lambda one: asker.plan(one[1], source=one[0]), concurrency)
    report.metrics[PLANS] = plans.evaluate(found)
    report.rows += [{"measure": PLANS, **plan.row()} for plan in found]


async def _decisions(
    report: Report, asker: PlanAsker, labelled: Sequence[tuple[Question, bool]]
) -> None:
    # One at a time: decisions are timed.
    found = await each(DECISIONS, labelled, lambda one: asker.decide(one[0], fit=one[1]), 1)
    report.metrics[DECISIONS] = decisions.evaluate(found, asker.split_threshold)
    report.rows += [{"measure": DECISIONS, **asdict(decision)} for decision in found]


def _tables(metrics: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One for each measure, with what is compared beside each other."""
    for measure, found in metrics.items():
        yield {measure: found} if measure == DECISIONS else found


if __name__ == "__main__":
    main()
