"""The `plato` command."""

from __future__ import annotations

import asyncio
import json
import logging
import runpy
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from plato.client import DEFAULT_URL, Answer, Asker, AsyncClient, LocalClient
from plato.display import RunView, summary
from plato.errors import InvalidPlanError, PlatoError
from plato.extras import needs
from plato.interrupts import abrupt_interrupts
from plato.logs import configure_logs
from plato.runs import Mode, Node
from plato.server.options import ServeOptions
from plato.settings import MAX_NODES, Settings, read_settings
from plato.tuning.options import TuneOptions

INTERRUPTED = 130
"""The exit status that shells use for Ctrl-C."""
TUNING = TuneOptions()

app = typer.Typer(
    help="Answers long questions faster by planning before decoding.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Url = Annotated[
    str | None,
    typer.Option(envvar="PLATO_URL", help=f"The server; default: {DEFAULT_URL}, else in-process."),
]
ApiKey = Annotated[str | None, typer.Option(envvar="PLATO_API_KEY", help="The server's API key.")]
Local = Annotated[bool, typer.Option("--local", help="Answer in this process, without a server.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def serve(context: typer.Context) -> None:
    """Start a server on this machine; for options see `plato serve --help`."""
    options = ServeOptions.parse(context.args)
    if options.embedded:
        with _errors_to_stderr(), abrupt_interrupts(), needs("torch"):
            from plato.server import embedded
        raise typer.Exit(embedded.main(options))
    # By name: only `deployments` depends on Ray; this package never imports it.
    sys.argv = ["plato serve", *context.args]
    runpy.run_module("deployments", run_name="__main__", alter_sys=True)


@app.command()
def ask(
    question: str,
    mode: Annotated[Mode, typer.Option(help="How to answer.")] = Mode.AUTO,
    plan: Annotated[
        Path | None, typer.Option(help="A plan to follow: plan lines, or a JSON list of parts.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Maximum answer tokens.")] = None,
    headings: Annotated[bool, typer.Option(help="Print a heading above each part.")] = True,
    url: Url = None,
    api_key: ApiKey = None,
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Answer a question, and show the progress of its parts."""
    options: dict[str, Any] = {"mode": mode.value, "headings": headings}
    if max_tokens is not None:
        options["max_tokens"] = max_tokens
    with _errors_to_stderr():
        if plan is not None:
            options["plan"] = read_plan(plan)
        asyncio.run(_ask(question, options, url, api_key, local=local, as_json=as_json))


@app.command()
def plan(
    question: str,
    url: Url = None,
    api_key: ApiKey = None,
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Print the plan of an answer without answering."""
    with _errors_to_stderr():
        asyncio.run(_plan(question, url, api_key, local=local, as_json=as_json))


@app.command()
def tune(
    out: Annotated[
        Path,
        typer.Argument(
            file_okay=False, help="Folder for the adapter; an interrupted run resumes there."
        ),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Examples as JSON lines; `bundled`, the default: those of Plato."),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=1, help="Maximum passes over the examples.")
    ] = TUNING.epochs,
    batch: Annotated[int, typer.Option(min=1, help="Samples per step.")] = TUNING.batch,
    learning_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Peak learning rate.")
    ] = TUNING.learning_rate,
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank.")] = TUNING.rank,
    kl_weight: Annotated[
        float,
        typer.Option(
            min=0,
            help="Weight of a penalty on changes of ordinary answers, for an adapter that you "
            "merge into the weights of another server.",
        ),
    ] = TUNING.kl_weight,
    initial: Annotated[
        Path | None, typer.Option(help="Adapter of the same model to start from.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = TUNING.seed,
) -> None:
    """Tune the configured model (PLATO_MODEL) for planning; writes a PEFT adapter."""
    with _errors_to_stderr():
        with needs("torch"):
            from plato.models import resolve_model
            from plato.models.progress import shown
            from plato.tuning.examples import BUNDLED, read_examples
            from plato.tuning.tuner import tune as run

        settings = read_settings()
        _configure_logs(settings)
        files = data or [Path("bundled")]
        sources = [BUNDLED if str(file) == "bundled" else file for file in files]
        examples = [example for source in sources for example in read_examples(source)]
        options = replace(
            TUNING,
            epochs=epochs,
            batch=batch,
            learning_rate=learning_rate,
            rank=rank,
            kl_weight=kl_weight,
            seed=seed,
            device=settings.device,
        )
        with shown(None) as progress:
            folder = resolve_model(
                settings.model, settings.cache_dir, settings.model_revision, progress
            )
            report = run(
                folder, examples, out, options, progress, initial=initial, name=settings.model
            )
    print(json.dumps({name: report[name] for name in ("calibration", "dependencies", "losses")}))
    print(f"use it with PLATO_ADAPTER={out.absolute()}", file=sys.stderr)


@app.command()
def key(tenant: str) -> None:
    """Make an API key; prints the key, and the line for the server's key file."""
    with _errors_to_stderr():
        from plato.api.access.keys import hash_key, new_key, read_entry

        made = new_key()
        hashed, name = read_entry(f"{tenant}={hash_key(made)}", plain=False)
    print(made)
    print(f"{name}={hashed}")


def main() -> None:
    """Run the command."""
    app()


def read_plan(path: Path) -> list[dict[str, Any]]:
    """Read a plan from a file: plan lines (`1 | Title | -`), or JSON.

    JSON is a list of parts, or what `plato plan --json` prints. Raises `InvalidPlanError`.
    """
    from plato.planning.given import read_plan as read_lines

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPlanError(f"the plan in {path} cannot be read: {error}") from error
    if text.lstrip().startswith(("{", "[{", "[\n", "[ ")) or path.suffix == ".json":
        try:
            parts = json.loads(text)
        except ValueError as error:
            raise InvalidPlanError(f"the plan in {path} is not valid JSON: {error}") from error
        if isinstance(parts, dict):
            parts = parts.get("plan")
        if not isinstance(parts, list):
            raise InvalidPlanError(f"the plan in {path} is not a JSON list of parts")
        return parts
    return [_part(node) for node in read_lines(text, MAX_NODES)]


def _part(node: Node) -> dict[str, Any]:
    """A node as a part of `plato.plan` in a request."""
    part = {"number": node.number, "title": node.title, "dependencies": list(node.dependencies)}
    return part if node.length is None else {**part, "length": node.length}


async def _ask(
    question: str,
    options: dict[str, Any],
    url: str | None,
    api_key: str | None,
    *,
    local: bool,
    as_json: bool,
) -> None:
    view = RunView()
    answer: Answer | None = None
    console = Console(stderr=True)
    async with _client(url, api_key, local=local, console=console) as client:
        # Without a terminal the answer is printed as it arrives, without live progress.
        moving = console.is_terminal
        live = Live(console=console, refresh_per_second=8, transient=True)
        with live if moving else nullcontext():
            async with aclosing(client.stream(question, **options)) as updates:
                async for update in updates:
                    answer = update.answer or answer
                    if update.event is not None:
                        view.feed(update.event)
                    if moving:
                        live.update(view.render())
                    elif not as_json:
                        print(update.text, end="", flush=True)
    assert answer is not None  # It comes with the last update.
    if as_json:
        info = answer.info.model_dump(mode="json")
        told = {"answer": answer.text, "finish_reason": answer.finish_reason, "plato": info}
        print(json.dumps(told))
        return
    print(answer.text if moving else "")
    console.print()
    console.print(summary(answer.info))


async def _plan(
    question: str, url: str | None, api_key: str | None, *, local: bool, as_json: bool
) -> None:
    view = RunView()
    console = Console(stderr=True)
    async with (
        _client(url, api_key, local=local, console=console) as client,
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
        parts = [_part(node) for node in planned]
        print(json.dumps({"mode": state.mode, "reason": reason, "plan": parts}))
        return
    if planned:
        Console().print(view.render(progress=False))
    if reason is not None:
        console.print(f"note: {reason}", style="yellow", markup=False)


@asynccontextmanager
async def _client(
    url: str | None, api_key: str | None, *, local: bool, console: Console
) -> AsyncGenerator[Asker]:
    """A client of the named or default server, or of a runtime in this process."""
    if not local:
        async with AsyncClient(url or DEFAULT_URL, api_key=api_key) as client:
            if url is not None or await client.answers():
                yield client
                return
        console.print(f"no server at {DEFAULT_URL}: answering in this process", style="dim")
    with needs("torch"):
        from plato.runtime import Runtime

    if console.is_terminal:
        console.print("loading the model", style="dim")
    settings = read_settings()
    _configure_logs(settings)
    async with await Runtime.open(settings) as runtime:
        yield LocalClient(runtime)


def _configure_logs(settings: Settings) -> None:
    """Show the log only if a level is set: errors are printed, and users do not need the rest."""
    if "log_level" in settings.model_fields_set:
        configure_logs(settings.log_level)
    else:
        logging.getLogger("plato").addHandler(logging.NullHandler())


@contextmanager
def _errors_to_stderr() -> Iterator[None]:
    """Turn an error into a line on standard error and exit status 1; Ctrl-C into 130."""
    try:
        yield
    except KeyboardInterrupt:
        # `asyncio.run` has cancelled everything by now.
        raise typer.Exit(INTERRUPTED) from None
    except (PlatoError, OSError) as error:
        message = error.message if isinstance(error, PlatoError) else str(error)
        print(f"plato: {message}", file=sys.stderr)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    main()
