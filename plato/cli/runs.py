"""`plato runs` and `plato trace`: the runs of a server."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown

from plato.api.runs.list import MAX_RUNS, ListedRun
from plato.api.runs.object import RunObject
from plato.cli.asking import REFRESHES_PER_S
from plato.cli.errors import UsageError
from plato.cli.options import ApiKey, AsJson, Url
from plato.cli.tables import print_rows
from plato.client import DEFAULT_URL, AsyncClient, RunUpdate
from plato.client.errors import read_error
from plato.display import RunView, graph_mermaid, mark_cuts, summary
from plato.exports import Recording, to_chrome_trace, to_markdown, to_page

T = TypeVar("T")
Id = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, or of an answer.")]

runs = typer.Typer(help="The runs of a server.", no_args_is_help=True)


class Format(StrEnum):
    """How a run is exported."""

    JSON = "json"
    MARKDOWN = "md"
    TRACE = "trace"
    """For chrome://tracing and ui.perfetto.dev."""
    MERMAID = "mermaid"
    """The graph alone, for Markdown."""
    HTML = "html"
    """A page that replays it without a server."""


_WRITERS: dict[Format, Callable[[Recording], str]] = {
    Format.JSON: lambda recording: json.dumps([recording.as_json()], indent=1) + "\n",
    Format.MARKDOWN: to_markdown,
    Format.TRACE: lambda recording: json.dumps(to_chrome_trace(recording)) + "\n",
    Format.MERMAID: lambda recording: graph_mermaid(recording.nodes),
    Format.HTML: lambda recording: to_page([recording]),
}


@runs.command()
def ls(
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=MAX_RUNS, help="Number of runs.")
    ] = 20,
    status: Annotated[
        Literal["running", "done", "failed", "cancelled"] | None,
        typer.Option(help="Only runs in this state."),
    ] = None,
    before: Annotated[str | None, typer.Option(help="Only runs older than this one.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List the runs of your API key, newest first."""
    listed = _call(
        url,
        api_key,
        lambda client: client.runs.list(limit=limit, before=before, status=status),
    )
    if as_json:
        print(listed.model_dump_json())
        return
    rows = [
        (run.id, run.status, str(run.mode), _age(run), " ".join(run.question.split())[:120])
        for run in listed.data
    ]
    print_rows(rows, "run", "status", "mode", "age", "question")
    if listed.next_before is not None:
        Console(stderr=True).print(f"older ones: --before {listed.next_before}", style="dim")


@runs.command()
def show(
    run_id: Id, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Print a run as it is now: its answer, its parts and their times."""
    run = _call(url, api_key, lambda client: client.runs.get(run_id))
    if as_json:
        print(run.model_dump_json())
    else:
        _print_run(run)


@runs.command()
def watch(
    run_id: Id, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Follow a run until it ends, from its start; with `--json` the run at its end.

    Interrupting this does not stop the run.
    """
    run = asyncio.run(_watch(url, api_key, run_id, quiet=as_json))
    if run.error is not None:
        raise read_error(run.error.model_dump())
    if as_json:
        print(run.model_dump_json())


@runs.command()
def cancel(
    run_id: Id, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Cancel a run; one that has ended stays as it is."""
    run = _call(url, api_key, lambda client: client.runs.cancel(run_id))
    print(run.model_dump_json() if as_json else f"{run.id} {run.status}")


@runs.command()
def export(
    run_id: Id,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            "-f",
            help="`json` (the run and its events), `md` (Markdown), `trace` (for chrome://tracing "
            "and ui.perfetto.dev), `mermaid` (the graph alone, for Markdown), `html` (a page that "
            "replays without a server).",
        ),
    ] = Format.JSON,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; default: standard output.")
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Export a run; waits for its end."""
    written = _WRITERS[form](asyncio.run(_record(url, api_key, run_id)))
    if out is None:
        sys.stdout.write(written)
    else:
        _write(out, written)


def trace(
    run_id: Id,
    html: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Write a page that replays a run without a server: graph, timeline, text and prompts."""
    _write(html, to_page([asyncio.run(_record(url, api_key, run_id))]))
    Console(stderr=True).print(f"open {html} in a browser", style="dim", markup=False)


def _call(
    url: str, api_key: str | None, call: Callable[[AsyncClient], Coroutine[Any, Any, T]]
) -> T:
    async def called() -> T:
        async with AsyncClient(url, api_key=api_key) as client:
            return await call(client)

    return asyncio.run(called())


async def _follow(url: str, api_key: str | None, run_id: str) -> AsyncGenerator[RunUpdate]:
    async with (
        AsyncClient(url, api_key=api_key) as client,
        aclosing(client.runs.follow(run_id)) as updates,
    ):
        async for update in updates:
            yield update


async def _watch(url: str, api_key: str | None, run_id: str, *, quiet: bool) -> RunObject:
    """Show a run until it has ended."""
    view, console = RunView(), Console(stderr=True)
    moving = console.is_terminal
    live = Live(console=console, refresh_per_second=REFRESHES_PER_S, transient=True)
    ended: RunObject | None = None
    with live if moving else nullcontext():
        async with aclosing(_follow(url, api_key, run_id)) as updates:
            async for update in updates:
                ended = update.run
                if update.event is not None:
                    view.feed(update.event)
                if moving:
                    live.update(view.render())
                elif not quiet:
                    print(update.text, end="", flush=True)
    assert ended is not None  # It comes with the last update.
    if moving and not quiet:
        _print_run(ended)
    elif not quiet:
        print()
    return ended


async def _record(url: str, api_key: str | None, run_id: str) -> Recording:
    """The run and its events, once it has ended."""
    events = []
    with Console(stderr=True).status("waiting for the end of the run"):
        async with aclosing(_follow(url, api_key, run_id)) as updates:
            async for update in updates:
                if update.event is not None:
                    events.append(update.event)
                if update.run is not None:
                    return Recording(update.run, events)
    raise AssertionError("the last update has the run")


def _print_run(run: RunObject) -> None:
    if run.answer and sys.stdout.isatty():
        Console().print(Markdown(mark_cuts(run.answer, run.texts, run.plato)))
    elif run.answer:
        print(run.answer)
    notes = Console(stderr=True)
    notes.print()
    notes.print(f"{run.id} {run.status}", style="bold", markup=False)
    if run.error is not None:
        notes.print(run.error.message, style="red", markup=False)
    notes.print(summary(run.plato))


def _write(file: Path, content: str) -> None:
    try:
        file.write_text(content, "utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be written ({error.strerror})") from error


def _age(run: ListedRun) -> str:
    seconds = max(0, int(time.time()) - run.created)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
