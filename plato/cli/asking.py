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

from plato.api.runs.events import describe_event
from plato.client import Answer, Asker, Update
from plato.client.answer import Question
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
    answer: Answer | None = None
    """Set at the end."""
    first_text_s: float | None = None
    duration_s: float = 0.0

    def take(self, update: Update, at_s: float) -> None:
        """Add an update that came at `at_s`."""
        if update.text and self.first_text_s is None:
            self.first_text_s = at_s
        self.answer = update.answer
        if update.event is not None:
            self.view.feed(update.event)
        self.duration_s = at_s

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "answer": self.complete.text,
            "finish_reason": self.complete.finish_reason,
            "plato": self.complete.info.model_dump(mode="json"),
        }

    @property
    def complete(self) -> Answer:
        """The complete answer."""
        assert self.answer is not None  # It comes with the last update.
        return self.answer


async def ask_and_show(
    client: Asker, question: Question, options: dict[str, Any], output: Output = Output.TEXT
) -> Answered:
    """Ask, and print what `output` says as it comes; of `JSON`, and the last of `EVENTS`, nothing.

    On a terminal the plan is shown until the answer is complete.
    """
    answered, console = Answered(), Console(stderr=True)
    # Without a terminal the answer is printed as it arrives, without live progress.
    moving = console.is_terminal and output is not Output.EVENTS
    live = Live(console=console, refresh_per_second=REFRESHES_PER_S, transient=True)
    started = time.monotonic()
    with live if moving else nullcontext():
        async with aclosing(client.stream(question, **options)) as updates:
            async for update in updates:
                answered.take(update, time.monotonic() - started)
                if moving:
                    live.update(answered.view.render())
                elif output is Output.TEXT:
                    print(update.text, end="", flush=True)
                elif output is Output.EVENTS and update.event is not None:
                    print(json.dumps(describe_event(update.event)), flush=True)
    if output is Output.TEXT:
        _show_text(answered, moving=moving)
    return answered


def show_summary(answered: Answered) -> None:
    """Print the graph, times and notes to standard error."""
    console = Console(stderr=True)
    console.print()
    console.print(summary(answered.complete.info))


def _show_text(answered: Answered, *, moving: bool) -> None:
    if not moving:
        print()
    elif not sys.stdout.isatty():
        print(answered.complete.text)
    else:
        parts = {number: node.text for number, node in answered.view.state.nodes.items()}
        marked = mark_cuts(answered.complete.text, parts, answered.complete.info)
        Console().print(Markdown(marked))
