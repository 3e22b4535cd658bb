"""`make demo`: one question, answered sequentially and then by Plato, over HTTP."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from contextlib import aclosing
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table

from deployments.local import LocalApp
from plato.api.answers.run_info import PlatoInfo
from plato.client import Answer, AsyncClient
from plato.display import RunView, notes, summary
from plato.errors import PlatoError
from plato.models import resolve_model
from plato.ports import free_port
from plato.settings import Settings

QUESTION = (
    "Describe the causes and effects of air pollution, and suggest what a city should do first."
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer, as seen by the client. Times in seconds."""

    text: str
    seconds: float
    first_text_s: float
    info: PlatoInfo

    @property
    def tokens(self) -> int:
        """Tokens of the answer."""
        return sum(node.tokens for node in self.info.graph.nodes)

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens of the nodes and the plan."""
        return self.info.usage.prompt_tokens

    @property
    def cached_tokens(self) -> int:
        """The part of them that was cached."""
        return self.info.usage.cached_tokens


async def ask(client: AsyncClient, console: Console, question: str, mode: str) -> Outcome:
    """Ask, display the answer while it streams, and time it."""
    view = RunView()
    answer: Answer | None = None
    started = time.monotonic()
    first_text_s = 0.0
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        async with aclosing(client.stream(question, mode=mode, headings=True)) as updates:
            async for update in updates:
                if update.text and not first_text_s:
                    first_text_s = time.monotonic() - started
                answer = update.answer or answer
                if update.event is not None:
                    view.feed(update.event)
                    live.update(view.render())
    assert answer is not None  # It comes with the last update.
    return Outcome(answer.text, time.monotonic() - started, first_text_s, answer.info)


async def compare(url: str, console: Console, question: str) -> None:
    """Answer the question in both modes, and print the comparison."""
    async with AsyncClient(url) as client:
        await client.ask("Hello", max_tokens=8, mode="sequential")
        console.print(Rule("sequential"))
        sequential = await ask(client, console, question, "sequential")
        console.print(sequential.text, highlight=False)
        console.print(notes(sequential.info))
        console.print(Rule("plato"))
        plato = await ask(client, console, question, "plato")
        console.print(plato.text, highlight=False)
        console.print(summary(plato.info))
        console.print(table(sequential, plato))


def table(sequential: Outcome, plato: Outcome) -> Table:
    """Comparison of both modes."""
    result = Table(title=f"sequential vs. plato (mode {plato.info.mode})")
    for name in ("", "sequential", "plato", "plato / sequential"):
        result.add_column(name, justify="right" if name else "left")

    def row(name: str, left: float, right: float, digits: int, unit: str = "") -> None:
        ratio = f"{right / left:.2f}" if left else "-"
        result.add_row(name, f"{left:.{digits}f}{unit}", f"{right:.{digits}f}{unit}", ratio)

    row("time", sequential.seconds, plato.seconds, 1, " s")
    row("answer tokens", sequential.tokens, plato.tokens, 0)
    row(
        "answer tokens/s",
        sequential.tokens / sequential.seconds,
        plato.tokens / plato.seconds,
        1,
    )
    row("time to first text", sequential.first_text_s, plato.first_text_s, 2, " s")
    row("prompt tokens", sequential.prompt_tokens, plato.prompt_tokens, 0)
    row("cached prompt tokens", sequential.cached_tokens, plato.cached_tokens, 0)
    return result


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deployments.demo", description=__doc__)
    parser.add_argument("question", nargs="?", default=QUESTION)
    parser.add_argument("--record", metavar="FILE", help="save the output as SVG")
    options = parser.parse_args()
    question: str = options.question
    console = Console(record=options.record is not None)
    settings = Settings()
    try:
        resolve_model(settings.model, settings.cache_dir, settings.model_revision)
        with console.status("starting") as status:
            app = LocalApp(settings, port=free_port(), report=status.update)
            app.start()
        with app:
            console.print(Panel(question, title=f"{settings.model_name} at {app.url}"))
            asyncio.run(compare(app.url, console, question))
    except PlatoError as error:
        console.print(f"demo: {error.message}", style="red")
        return 1
    if options.record is not None:
        console.save_svg(options.record, title="make demo")
    return 0


if __name__ == "__main__":
    sys.exit(main())
