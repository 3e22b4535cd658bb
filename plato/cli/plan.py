"""`plato plan`."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Annotated

import typer
from rich.console import Console

from plato.cli.ask import read_question
from plato.cli.clients import open_client
from plato.cli.options import ApiKey, AsJson, FoundUrl, Local
from plato.cli.plan_file import part_of
from plato.display import RunView
from plato.runs import Mode


def plan(
    question: Annotated[
        list[str] | None, typer.Argument(help="The question; `-` stands for standard input.")
    ] = None,
    url: FoundUrl = None,
    api_key: ApiKey = None,
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Print the plan of an answer without answering.

    `plato ask --plan FILE` follows what `--json` prints.
    """
    text = read_question(question or [])
    asyncio.run(_plan(text, url, api_key, local=local, as_json=as_json))


async def _plan(
    question: str, url: str | None, api_key: str | None, *, local: bool, as_json: bool
) -> None:
    view = RunView()
    console = Console(stderr=True)
    async with (
        open_client(url, api_key, local=local, console=console) as client,
        aclosing(client.stream(question, mode=Mode.PLATO.value)) as updates,
    ):
        async for update in updates:
            if update.event is not None:
                view.feed(update.event)
            if view.state.plan_complete:
                # Closing the stream cancels the parts that have begun.
                break
    state = view.state
    # A question that cannot be planned has one part, the whole answer.
    planned = () if state.mode is Mode.SEQUENTIAL else state.planned_nodes
    reason = state.report().reason
    if as_json:
        parts = [part_of(node) for node in planned]
        print(json.dumps({"mode": state.mode, "reason": reason, "plan": parts}))
        return
    if planned:
        Console().print(view.render(progress=False))
    if reason is not None:
        console.print(f"note: {reason}", style="yellow", markup=False)
