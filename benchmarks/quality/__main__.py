"""How good are the answers, and which do judges prefer?

    python -m benchmarks.quality answer --out answers.jsonl [--questions FILE] [--labels FILE]
        [--modes MODE ...] [--model NAME] [--url URL] [--max-tokens N] [--headings] [NAME=VALUE ...]
    python -m benchmarks.quality metrics answers.jsonl [--json FILE]
    python -m benchmarks.quality pairs answers.jsonl --pairs pairs.jsonl --key key.jsonl
    python -m benchmarks.quality judge pairs.jsonl --judge-url URL --judge-model NAME
        --out verdicts.jsonl
    python -m benchmarks.quality report key.jsonl verdicts.jsonl [...] [--json FILE]

`answer` asks every question in every mode, one at a time, with the model's own plans and lengths.
All other steps read what it has written. `pairs` writes two answers per row, both orders of each
question, without a word about who wrote them; readers give verdicts as JSON lines, such as
`{"pair": "7", "verdict": "1>2"}` (`1>>2`, `1>2`, `1=2`, `2>1`, `2>>1`), and `judge` asks a model
for the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from benchmarks.answering.asking import Asker, RuntimeAsker, ServedModel, http_asker
from benchmarks.answering.questions import label_of, read_labels, read_questions
from benchmarks.common.report import Report
from benchmarks.common.rows import InputError, read_rows, write_row, write_rows
from benchmarks.common.workload import SHARED_DATA
from benchmarks.quality.answers import Answer, ask_all, by_mode, way_of
from benchmarks.quality.judge import Judge, judge_all
from benchmarks.quality.metrics import metrics
from benchmarks.quality.pairs import Key, Pair, Verdict, blind
from benchmarks.quality.preference import report
from plato.errors import PlatoError, SettingsError
from plato.runs import Mode
from plato.runtime import Runtime
from plato.server.options import parse_assignments
from plato.settings import Settings, read_settings

MODES = ("sequential", "plato", "skeleton")
API_KEY, JUDGE_API_KEY = "PLATO_API_KEY", "JUDGE_API_KEY"
PATIENT = {
    "plan_deadline_s": 300,
    "node_deadline_s": 900,
    "run_deadline_s": 900,
    "patience_s": 900,
}
"""Deadlines that only a slow machine would miss are not about the answers."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.step(options)
    except (InputError, PlatoError, RuntimeError, OSError) as error:
        parser.exit(1, f"{parser.prog} {options.name}: {error}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(dest="name", required=True, metavar="STEP")

    step = steps.add_parser("answer", help="ask every question in every mode")
    step.set_defaults(step=_answer)
    step.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="as for 'plato serve'")
    step.add_argument("--out", type=Path, required=True, help="the answers, as JSON lines")
    step.add_argument("--questions", type=Path, default=SHARED_DATA / "vicuna80.jsonl")
    step.add_argument("--labels", type=Path, help="keep the questions labelled fit for splitting")
    step.add_argument("--modes", nargs="+", choices=list(Mode), metavar="MODE")
    step.add_argument("--model", help="default: the settings' model, or the server's first")
    step.add_argument("--url", help=f"a server, instead of this process; its key is in {API_KEY}")
    step.add_argument(
        "--max-tokens", type=_positive, help="of every answer; default: natural lengths"
    )
    step.add_argument("--headings", action="store_true", help="each part's title above it")

    step = steps.add_parser("metrics", help="lengths, latencies, repetition, ends, titles")
    step.set_defaults(step=_metrics)
    step.add_argument("answers", type=Path)
    step.add_argument("--json", type=Path, help="write the metrics here")

    step = steps.add_parser("pairs", help="blinded pairs for judges")
    step.set_defaults(step=_pairs)
    step.add_argument("answers", type=Path)
    step.add_argument("--against", type=Path, help="take the second mode from other answers")
    step.add_argument("--modes", nargs=2, default=["plato", "sequential"], metavar="MODE")
    step.add_argument("--split-only", action="store_true", help="only what the first mode split")
    step.add_argument("--pairs", type=Path, required=True, help="for judges")
    step.add_argument("--key", type=Path, required=True, help="not for judges")
    step.add_argument("--seed", type=int, default=0)

    step = steps.add_parser("judge", help="ask a model for verdicts")
    step.set_defaults(step=_judge)
    step.add_argument("pairs", type=Path)
    step.add_argument("--out", type=Path, required=True, help="the verdicts, as JSON lines")
    step.add_argument("--judge-url", required=True, help=f"its key is in {JUDGE_API_KEY}")
    step.add_argument("--judge-model", required=True)
    step.add_argument("--judge-extra", type=json.loads, default={}, metavar="JSON")
    step.add_argument("--concurrency", type=_positive, default=4)
    step.add_argument("--deadline-s", type=float, default=300.0, help="of one verdict")

    step = steps.add_parser("report", help="net win from verdicts")
    step.set_defaults(step=_report)
    step.add_argument("key", type=Path)
    step.add_argument("verdicts", type=Path, nargs="+", help="a file for each judge")
    step.add_argument("--json", type=Path, help="write the metrics here")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _answer(options: argparse.Namespace) -> None:
    questions = read_questions(options.questions)
    if options.labels is not None:
        labels = read_labels(options.labels)
        questions = [question for question in questions if label_of(question, labels)]
    if not questions:
        raise InputError(f"{options.questions} has no questions to ask")
    values: dict[str, object] = {**PATIENT, **parse_assignments(options.settings)}
    if options.model is not None:
        values["model"] = options.model

    async def ask() -> int:
        answers = 0
        async with _asker(options, read_settings(values)) as (asker, model, modes):
            ways = [
                way_of(mode, max_tokens=options.max_tokens, headings=options.headings)
                for mode in modes
            ]
            with options.out.open("w", encoding="utf-8") as file:
                async for answer in ask_all(asker, model, questions, ways):
                    write_row(file, answer)
                    answers += 1
        return len(questions) * len(modes) - answers

    failed = asyncio.run(ask())
    if failed:
        raise InputError(f"{failed} answers failed, see above; the others are in {options.out}")


@asynccontextmanager
async def _asker(
    options: argparse.Namespace, settings: Settings
) -> AsyncGenerator[tuple[Asker, str, Sequence[str]]]:
    """Who answers, with which model, and in which modes."""
    if options.url is None:
        async with await Runtime.open(settings) as runtime:
            yield RuntimeAsker(runtime, settings), settings.model_name, options.modes or MODES
        return
    if options.settings:
        raise SettingsError("settings are those of the server; leave out --url, or NAME=VALUE")
    key = os.environ.get(API_KEY)
    served = await ServedModel.find(options.url, key)
    modes = options.modes or (MODES if served.plato else MODES[:1])
    if not served.plato and list(modes) != ["sequential"]:
        raise InputError(f"{options.url} is not served by Plato; use --modes sequential")
    model = options.model or served.name
    async with http_asker(options.url, model, plato=served.plato, api_key=key) as asker:
        yield asker, model, modes


def _metrics(options: argparse.Namespace) -> None:
    answers = read_rows(options.answers, Answer)
    models = ", ".join(sorted({answer.model for answer in answers}))
    found = metrics(answers)
    columns = {
        f"{modes} {over}": compared[over]
        for modes, compared in found.items()
        for over in ("all", "split_only")
    }
    Report("quality", models, {}, metrics=found).write(options.json, columns)


def _pairs(options: argparse.Namespace) -> None:
    ours = by_mode(read_rows(options.answers, Answer))
    theirs = by_mode(read_rows(options.against, Answer)) if options.against else ours
    mode, other = options.modes
    for name, modes, path in (
        (mode, ours, options.answers),
        (other, theirs, options.against or options.answers),
    ):
        if name not in modes:
            raise InputError(f"{path} has no answers in mode {name}, only {', '.join(modes)}")
    chosen = {
        question: answer
        for question, answer in ours[mode].items()
        if answer.split or not options.split_only
    }
    pairs, keys = blind(chosen, theirs[other], options.seed)
    if not pairs:
        raise InputError("no question is answered in both modes")
    write_rows(options.pairs, pairs)
    write_rows(options.key, keys)


def _judge(options: argparse.Namespace) -> None:
    pairs = read_rows(options.pairs, Pair)

    async def judge() -> int:
        missing = 0
        async with httpx.AsyncClient(timeout=None) as http:
            one = Judge(
                http,
                options.judge_url,
                options.judge_model,
                os.environ.get(JUDGE_API_KEY),
                options.judge_extra,
                options.deadline_s,
            )
            with options.out.open("w", encoding="utf-8") as file:
                async for verdict in judge_all(one, pairs, options.concurrency):
                    write_row(file, verdict)
                    if verdict.verdict is None:
                        missing += 1
                        sys.stderr.write(f"no verdict on pair {verdict.pair}\n")
        return missing

    missing = asyncio.run(judge())
    if missing:
        sys.stderr.write(f"{missing} of {len(pairs)} pairs have no verdict; see {options.out}\n")


def _report(options: argparse.Namespace) -> None:
    keys = read_rows(options.key, Key)
    found = report(keys, [read_rows(path, Verdict) for path in options.verdicts])
    one = keys[0]
    compared = {"mode": one.mode, "against": one.mode_against, "model_against": one.model_against}
    Report("quality", one.model, compared, metrics=found).write(options.json)


if __name__ == "__main__":
    main()
