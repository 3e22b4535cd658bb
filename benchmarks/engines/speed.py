"""How much faster are answers with Plato in front of an engine than from the engine itself?"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.answering.asking import PLATO, SEQUENTIAL, Answered, http_asker
from benchmarks.answering.questions import Question
from benchmarks.common.serving import Serving, serving
from benchmarks.common.statistics import bootstrap
from benchmarks.engines.environments import make_environment
from benchmarks.engines.servers import RealEngine, Size
from plato.runs import Node
from plato.settings import DEFAULT_MODEL, Settings

SIZE = Size(context=2048, sequences=16)
WARM_UP = Question(
    "warm-up", "", "What is a lighthouse?", (Node(1, "Its light", (), 8), Node(2, "Its use", (), 8))
)
KEY = "one"
"""llama.cpp cannot separate the cached prompts of several keys."""
OWN = {"ignore_eos": True, "temperature": 0.0}
"""Fields of requests to the engine's own endpoint, for answers of the same length as Plato's."""


def measure_speed(
    engine: RealEngine, questions: Sequence[Question], repeats: int, logs: Path
) -> list[dict[str, Any]]:
    """A row for each question, asked both ways in turn.

    Lengths are equal, plans are decoded, and whoever is not asked is suspended.
    """
    with ExitStack() as stack:
        own = stack.enter_context(engine.server(SIZE, logs / f"{engine.name}.log"))
        python: str | Path = sys.executable
        if engine.in_process:
            python = make_environment(engine.environment) / "python"
        settings = Settings(
            **engine.settings(own.url),
            node_deadline_s=600,
            run_deadline_s=1200,
            plan_deadline_s=300,
            max_sequences=SIZE.sequences,
            temperature=0.0,
            repetition_penalty=1.0,
            equal_work=True,
        )
        plato = stack.enter_context(serving(settings, embedded=True, python=python))
        return asyncio.run(_in_turn(engine, own, plato, questions, repeats))


async def _in_turn(
    engine: RealEngine, own: Serving, plato: Serving, questions: Sequence[Question], repeats: int
) -> list[dict[str, Any]]:
    rows = []
    async with AsyncExitStack() as stack:
        directly = await stack.enter_async_context(
            http_asker(own.url, DEFAULT_MODEL, plato=False, api_key=KEY, extra=OWN)
        )
        planned = await stack.enter_async_context(http_asker(plato.url, DEFAULT_MODEL, api_key=KEY))
        for question in (WARM_UP, *(q for _ in range(repeats) for q in questions)):
            with plato.suspended():
                theirs = await directly.ask(question, SEQUENTIAL)
            with ExitStack() as stopped:
                if engine.in_process:
                    stopped.enter_context(own.suspended())
                ours = await planned.ask(question, PLATO)
            if question is not WARM_UP:
                rows.append(_row(theirs, ours))
    return rows


def _row(theirs: Answered, ours: Answered) -> dict[str, Any]:
    row = {
        "question": ours.question.name,
        "own_tokens": theirs.tokens,
        "plato_tokens": ours.tokens,
        "plan_tokens": ours.info["plan"]["tokens"],
        "own_s": theirs.latency_s,
        "plato_s": ours.latency_s,
        "speedup": theirs.latency_s / ours.latency_s,
    }
    sys.stderr.write(f"{row}\n")
    if not theirs.tokens == ours.tokens == ours.question.tokens:
        raise RuntimeError(f"the answers differ in length, so they cannot be compared: {row}")
    return row


def speed_metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the questions of each engine, with bootstrap intervals of 95 %."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(row["engine"] for row in rows):
        ratios = [row["speedup"] for row in rows if row["engine"] == name]
        found[f"speedup_{name}"] = median(ratios)
        found[f"speedup_{name}_interval"] = bootstrap(ratios, median)
    return found
