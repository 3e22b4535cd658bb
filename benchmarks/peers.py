"""How does Plato compare with other servers on the same machine?

    python -m benchmarks.peers [--quick] [--json FILE] [--no-generate]
        [--server URL [--server-model NAME] [--server-extra JSON] [--server-key KEY]]

The questions of the fixed workload, one at a time: answered by Plato over HTTP, sequentially and
planned; by `transformers.generate` with the same model in a process of its own; and by any
OpenAI-compatible server (vLLM, llama.cpp, Ray Serve LLM, `transformers serve`) given by its URL.
Every answer has the same number of tokens. If a server stops at the end-of-sequence token, disable
that: with vLLM `--server-extra '{"ignore_eos": true}'`; remaining differences are shown in the
table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from deployments.local import LocalApp  # isort: skip
from rich.console import Console
from rich.table import Table

from benchmarks.answering.asking import (
    PLATO,
    SEQUENTIAL,
    Answered,
    HttpAsker,
    ServedModel,
    Way,
    http_asker,
)
from benchmarks.answering.questions import WARM_UP, Question
from benchmarks.common.report import Report, arguments
from benchmarks.common.workload import fixed_graphs
from plato.models import resolve_model
from plato.ports import free_port
from plato.settings import Settings

QUICK_GRAPHS = ("first-bicycle", "two-sided", "chain-4")
GENERATE = "transformers.generate"
DEADLINE_S = 3600.0


def main() -> None:
    """Run the benchmark."""
    options = _arguments().parse_args()
    if options.generate_worker is not None:
        generate_worker(options.generate_worker)
        return
    questions = [
        Question.of(graph)
        for graph in fixed_graphs()
        if not options.quick or graph.name in QUICK_GRAPHS
    ]
    settings = Settings(
        node_deadline_s=600,
        run_deadline_s=1200,
        # As `generate` decodes here.
        temperature=0.0,
        repetition_penalty=1.0,
        equal_work=True,
    )
    rows: list[dict[str, Any]] = []
    if options.server is not None:
        rows += asyncio.run(ask_server(options, questions))
    if options.generate:
        rows += ask_generate(resolve_model(settings.model), questions)
    with LocalApp(settings, port=free_port()) as app:
        rows += asyncio.run(ask_plato(app.url, settings, questions))
    report = Report(
        "peers",
        settings.model_name,
        {"quick": options.quick, "server": options.server, "questions": len(questions)},
        metrics=metrics(rows),
        rows=rows,
    )
    show(rows)
    report.write(options.json)


def _arguments() -> argparse.ArgumentParser:
    parser = arguments("peers", __doc__ or "")
    parser.add_argument("--server", metavar="URL", help="an OpenAI-compatible server")
    parser.add_argument("--server-model", metavar="NAME", help="default: its first model")
    parser.add_argument("--server-key", metavar="KEY", default="none", help="its API key")
    parser.add_argument(
        "--server-extra",
        metavar="JSON",
        type=json.loads,
        default={},
        help="fields to add to every request",
    )
    parser.add_argument(
        "--no-generate", dest="generate", action="store_false", help=f"leave out {GENERATE}"
    )
    parser.add_argument("--generate-worker", type=Path, help=argparse.SUPPRESS)
    return parser


async def ask_plato(
    url: str, settings: Settings, questions: Sequence[Question]
) -> list[dict[str, Any]]:
    """Plato over HTTP, both ways."""
    async with http_asker(url, settings.model_name) as asker:
        rows = []
        for way in (SEQUENTIAL, PLATO):
            rows += await ask_all(asker, f"Plato, {way.name}", questions, way)
        return rows


async def ask_server(
    options: argparse.Namespace, questions: Sequence[Question]
) -> list[dict[str, Any]]:
    """The server that was given."""
    base = options.server.rstrip("/").removesuffix("/v1")
    model = options.server_model or (await ServedModel.find(base, options.server_key)).name
    async with http_asker(
        base, model, plato=False, api_key=options.server_key, extra=options.server_extra
    ) as asker:
        return await ask_all(asker, options.server, questions, SEQUENTIAL)


async def ask_all(
    asker: HttpAsker, name: str, questions: Sequence[Question], way: Way
) -> list[dict[str, Any]]:
    """Every question, after one to warm up."""
    await asker.ask(WARM_UP, way)
    return [row(name, await asker.ask(question, way)) for question in questions]


def ask_generate(folder: Path, questions: Sequence[Question]) -> list[dict[str, Any]]:
    """`transformers.generate` in a process of its own: engines in one disturb each other."""
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers", "--generate-worker", str(folder)],
        input=json.dumps([[q.name, q.kind, q.text, q.tokens] for q in questions]),
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        timeout=DEADLINE_S,
    )
    rows: list[dict[str, Any]] = json.loads(found.stdout)
    return rows


def generate_worker(folder: Path) -> None:
    """Answer the questions on standard input; rows go to standard output."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.generation.streamers import BaseStreamer

    class Watch(BaseStreamer):
        """Notes when the first token comes; the prompt comes before it."""

        def __init__(self) -> None:
            self.calls = 0
            self.first_at = 0.0

        def put(self, value: Any) -> None:
            self.calls += 1
            if self.calls == 2:
                self.first_at = time.perf_counter()

        def end(self) -> None:
            pass

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = []
    for name, kind, text, tokens in [["", "", "What?", 8], *json.load(sys.stdin)]:
        chat = [{"role": "user", "content": text}]
        inputs: Any = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        watch = Watch()
        began = time.perf_counter()
        with torch.inference_mode():
            model.generate(
                **inputs,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                streamer=watch,
            )
        latency_s = time.perf_counter() - began
        if name:
            rows.append(_row(GENERATE, name, kind, tokens, latency_s, watch.first_at - began))
            sys.stderr.write(f"{GENERATE} {name}: {latency_s:.2f} s\n")
    json.dump(rows, sys.stdout)


def row(name: str, answered: Answered) -> dict[str, Any]:
    """An answer as a row of the report."""
    question = answered.question
    sys.stderr.write(f"{name} {question.name}: {answered.latency_s:.2f} s\n")
    return _row(
        name,
        question.name,
        question.kind,
        answered.tokens or question.tokens,
        answered.latency_s,
        answered.first_text_s,
    )


def _row(
    name: str, question: str, kind: str, tokens: int, latency_s: float, first_text_s: float
) -> dict[str, Any]:
    return {
        "server": name,
        "question": question,
        "kind": kind,
        "tokens": tokens,
        "latency_s": latency_s,
        "first_text_s": first_text_s,
        "tokens_per_s": tokens / latency_s,
    }


def metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Tokens a second of Plato over every other's; medians over questions."""
    rates: dict[str, dict[str, float]] = {}
    for one in rows:
        rates.setdefault(one["server"], {})[one["question"]] = one["tokens_per_s"]
    ours = rates[f"Plato, {PLATO.name}"]
    return {
        f"over {name}": median(ours[question] / rate for question, rate in theirs.items())
        for name, theirs in rates.items()
        if theirs is not ours
    }


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print medians by server and kind."""
    table = Table(title="one question at a time: medians")
    for name in ("server", "kind"):
        table.add_column(name)
    columns = ("tokens", "latency_s", "first_text_s", "tokens_per_s")
    for name in columns:
        table.add_column(name, justify="right")
    for server, kind in dict.fromkeys((row["server"], row["kind"]) for row in rows):
        found = [row for row in rows if (row["server"], row["kind"]) == (server, kind)]
        table.add_row(
            server, kind, *(f"{median(row[column] for row in found):.3g}" for column in columns)
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
