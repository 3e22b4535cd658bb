"""`plato bench`: a short measurement of any server with OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from contextlib import aclosing
from dataclasses import asdict, dataclass
from itertools import cycle, groupby, islice
from typing import Annotated, Any

import typer
from rich.console import Console

from plato.cli.errors import ExitCode
from plato.cli.options import ApiKey, AsJson, Url
from plato.cli.tables import print_rows
from plato.client import DEFAULT_URL
from plato.client.connection import Connection
from plato.client.errors import read_json
from plato.errors import PlatoError

DONE = "[DONE]"
QUESTIONS = (
    "How do I choose my first road bicycle?",
    "What are the advantages and disadvantages of solar power?",
    "Describe the causes and effects of air pollution.",
    "How can a small town attract visitors in winter?",
    "Compare trains, buses and cars for a daily commute of an hour.",
    "What should I consider before I adopt a dog?",
    "Give me tips for learning a new language in a year.",
    "What are the main steps of writing a research paper?",
)


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer. Times in seconds."""

    duration_s: float
    first_text_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Row:
    """The answers of a model at one concurrency. Times in seconds."""

    model: str
    concurrency: int
    answered: int
    failed: int
    first_text_p50_s: float
    duration_p50_s: float
    duration_max_s: float
    tokens_per_s: float
    """Of all answers together."""


def bench(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model to measure; default: the first one of the server. Repeat it to compare: "
            "NAME:sequential and NAME:plato, at Plato."
        ),
    ] = None,
    concurrency: Annotated[
        list[int] | None,
        typer.Option("--concurrency", "-c", min=1, max=256, help="Questions at a time; repeat it."),
    ] = None,
    questions: Annotated[
        int, typer.Option("--questions", "-n", min=1, max=1000, help="Questions for each row.")
    ] = len(QUESTIONS),
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum tokens of an answer.")] = 256,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Measure a server with OpenAI's chat completions, Plato or any other, in a minute or two.

    A row for each model and concurrency: time to the first text, time of an answer, throughput.
    The numbers hold for this load and these questions only. Exit status: 1 if an answer failed.
    """
    rows = asyncio.run(
        _measure_all(url, api_key, model, concurrency or [1, 4], questions, max_tokens)
    )
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        _print(rows)
    if any(row.failed for row in rows):
        raise typer.Exit(ExitCode.FAILED)


async def _measure_all(
    url: str,
    api_key: str | None,
    models: list[str] | None,
    concurrencies: list[int],
    questions: int,
    max_tokens: int,
) -> list[Row]:
    connection, rows = Connection(url, api_key), []
    try:
        if not models:
            with connection.understood():
                listed = await connection.call("GET", "/v1/models")
                models = [listed["data"][0]["id"]]
        with Console(stderr=True).status("") as status:
            for name in models:
                # Caches are warm and kernels compiled afterwards; also finds what is refused.
                status.update(f"{name}: warming up")
                await _ask(connection, name, QUESTIONS[0], min(16, max_tokens))
                for width in concurrencies:
                    status.update(f"{name}: {questions} questions, {width} at a time")
                    rows.append(await _measure(connection, name, width, questions, max_tokens))
    finally:
        await connection.close()
    return rows


async def _measure(
    connection: Connection, model: str, width: int, questions: int, max_tokens: int
) -> Row:
    waiting = islice(cycle(QUESTIONS), questions)
    answers: list[Answered] = []
    failed = 0

    async def work() -> None:
        nonlocal failed
        for question in waiting:
            try:
                answers.append(await _ask(connection, model, question, max_tokens))
            except PlatoError:
                failed += 1

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(width, questions)):
            group.create_task(work())
    duration_s = time.perf_counter() - started
    return Row(
        model,
        width,
        len(answers),
        failed,
        first_text_p50_s=statistics.median([each.first_text_s for each in answers] or [0.0]),
        duration_p50_s=statistics.median([each.duration_s for each in answers] or [0.0]),
        duration_max_s=max((each.duration_s for each in answers), default=0.0),
        tokens_per_s=sum(each.tokens for each in answers) / duration_s,
    )


async def _ask(connection: Connection, model: str, question: str, max_tokens: int) -> Answered:
    """One answer, greedy so that measurements are alike. Raises a `PlatoError`."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started = time.perf_counter()
    first_text_s: float | None = None
    usage: dict[str, Any] = {}
    chunks = 0
    events = connection.events("POST", "/v1/chat/completions", body=body)
    with connection.understood():
        async with aclosing(events):
            async for data in events:
                if data == DONE:
                    break
                chunk = read_json(data)
                usage = chunk.get("usage") or usage
                if any(choice["delta"].get("content") for choice in chunk["choices"]):
                    chunks += 1
                    first_text_s = first_text_s or time.perf_counter() - started
    duration_s = time.perf_counter() - started
    return Answered(duration_s, first_text_s or duration_s, _visible_tokens(usage, chunks))


def _visible_tokens(usage: dict[str, Any], chunks: int) -> int:
    """Tokens of the answer; without a usage the number of its chunks, which is about the same."""
    details = usage.get("completion_tokens_details") or {}
    tokens = int(usage.get("completion_tokens") or chunks)
    return tokens - int(details.get("reasoning_tokens") or 0)


def _print(rows: list[Row]) -> None:
    figures = ("at a time", "answers", "first text", "answer", "longest", "tokens/s")
    for model, measured in groupby(rows, lambda row: row.model):
        # Not a column: with their names, models of the hub leave no room for figures.
        print(model)
        cells = [
            (
                str(row.concurrency),
                f"{row.answered} ({row.failed} failed)" if row.failed else str(row.answered),
                f"{row.first_text_p50_s:.2f} s",
                f"{row.duration_p50_s:.2f} s",
                f"{row.duration_max_s:.2f} s",
                f"{row.tokens_per_s:.1f}",
            )
            for row in measured
        ]
        print_rows(cells, *figures, right=figures)
