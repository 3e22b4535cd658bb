"""One question and its answer on the terminal."""

from __future__ import annotations

import json
import sys
import time
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown

from plato.api.answers.run_info import PlatoInfo
from plato.api.runs.events import describe_event
from plato.client import Client, Update
from plato.display import RunView, mark_cuts, summary

REFRESHES_PER_S = 8


class Output(Enum):
    """What is printed of an answer."""

    TEXT = auto()
    """The answer on standard output, everything about it on standard error."""
    JSON = auto()
    """One object."""
    EVENTS = auto()
    """An object a line: the events as they happen, then that of `JSON`."""


@dataclass(slots=True)
class Answered:
    """An answer, as the client saw it. Times in seconds."""

    view: RunView = field(default_factory=RunView)
    text: str = ""
    info: PlatoInfo | None = None
    finish_reason: str | None = None
    first_text_s: float | None = None
    duration_s: float = 0.0

    def take(self, update: Update, at_s: float) -> None:
        """Add an update that came at `at_s`."""
        if update.text and self.first_text_s is None:
            self.first_text_s = at_s
        self.text += update.text
        self.info = update.info or self.info
        self.finish_reason = update.finish_reason or self.finish_reason
        if update.event is not None:
            self.view.feed(update.event)
        self.duration_s = at_s

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        info = None if self.info is None else self.info.model_dump(mode="json")
        return {"answer": self.text, "finish_reason": self.finish_reason, "plato": info}


async def ask_and_show(
    client: Client, question: str, options: dict[str, Any], output: Output = Output.TEXT
) -> Answered:
    """Ask, and print what `output` says while the answer comes, except its end.

    `show_answer` prints the answer of a terminal, where until its end the plan is shown.
    """
    answered, console = Answered(), Console(stderr=True)
    # Without a terminal the answer is printed as it arrives, without live progress.
    moving = console.is_terminal
    live = Live(console=console, refresh_per_second=REFRESHES_PER_S, transient=True)
    started = time.monotonic()
    with live if moving else nullcontext():
        async with aclosing(client.ask(question, options)) as updates:
            async for update in updates:
                answered.take(update, time.monotonic() - started)
                if moving:
                    live.update(answered.view.render())
                elif output is Output.TEXT:
                    print(update.text, end="", flush=True)
                if output is Output.EVENTS and update.event is not None:
                    print(json.dumps(describe_event(update.event)), flush=True)
    if output is Output.TEXT:
        _show_text(answered, moving=moving)
    return answered


def show_summary(answered: Answered) -> None:
    """Print the graph, times and notes to standard error."""
    if answered.info is not None:
        console = Console(stderr=True)
        console.print()
        console.print(summary(answered.info))


def _show_text(answered: Answered, *, moving: bool) -> None:
    if not moving:
        print()
    elif not sys.stdout.isatty():
        print(answered.text)
    else:
        parts = {number: node.text for number, node in answered.view.state.nodes.items()}
        marked = mark_cuts(answered.text, parts, answered.info)
        Console().print(Markdown(marked))
