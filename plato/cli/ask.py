"""`plato ask`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from plato.cli.asking import Output, ask_and_show, show_summary
from plato.cli.clients import open_client
from plato.cli.compare import compare
from plato.cli.errors import UsageError
from plato.cli.options import (
    AnswerMode,
    ApiKey,
    AsJson,
    Fields,
    FoundUrl,
    Local,
    MaxTokens,
    Seed,
    System,
    messages_of,
    request_fields,
)
from plato.cli.plan_file import read_plan
from plato.runs import Mode

STDIN = "-"


def ask(
    question: Annotated[
        list[str] | None,
        typer.Argument(help="The question; `-` stands for standard input, as does nothing at all."),
    ] = None,
    mode: AnswerMode = Mode.AUTO,
    system: System = None,
    plan: Annotated[
        Path | None, typer.Option(help="A plan to follow: plan lines, or a JSON list of parts.")
    ] = None,
    max_tokens: MaxTokens = None,
    option: Fields = None,
    seed: Seed = None,
    headings: Annotated[bool, typer.Option(help="Print a heading above each part.")] = True,
    events: Annotated[
        bool,
        typer.Option(
            "--events", help="Print every event as a line of JSON, and what --json prints at last."
        ),
    ] = False,
    compared: Annotated[
        bool,
        typer.Option("--compare", help="Answer sequentially, then with --mode, and compare times."),
    ] = False,
    url: FoundUrl = None,
    api_key: ApiKey = None,
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Answer a question, and show the progress of its parts.

    The answer goes to standard output, its plan and times to standard error.

    Exit status: 0; 1 it failed; 2 usage; 3 no server; 4 refused; 5 overloaded or out of time; 130
    interrupted.
    """
    messages = messages_of(read_question(question or []), system)
    options = request_fields(option or [], seed=seed, max_tokens=max_tokens)
    options |= {"mode": mode.value, "headings": headings}
    if plan is not None:
        options["plan"] = read_plan(plan)
    output = Output.EVENTS if events else Output.JSON if as_json else Output.TEXT
    if compared and mode is Mode.SEQUENTIAL:
        raise UsageError("--compare needs another mode than sequential, with which it compares")
    if compared and events:
        raise UsageError("--events is for one answer; leave --compare out, or use --json")

    async def answer() -> None:
        console = Console(stderr=True)
        async with open_client(url, api_key, local=local, console=console) as client:
            if compared:
                await compare(client, messages, options, output)
                return
            answered = await ask_and_show(client, messages, options, output)
        if output is Output.TEXT:
            show_summary(answered)
        else:
            print(json.dumps(answered.as_json()))

    asyncio.run(answer())


def read_question(words: list[str]) -> str:
    """The question of a command line. Raises `UsageError` if there is none."""
    if not words and sys.stdin.isatty():
        raise UsageError("there is no question; write one: plato ask 'Why is the sea salty?'")
    parts = [sys.stdin.read() if word == STDIN else word for word in words or [STDIN]]
    question = (" " if STDIN not in words else "\n\n").join(parts).strip()
    if not question:
        raise UsageError("the question is empty; write one: plato ask 'Why is the sea salty?'")
    return question
